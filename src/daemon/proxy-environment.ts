/**
 * What makes programs that know proxies use the one at `url`: curl, Python, Go and Node by itself. What runs on this machine is called without it.
 */
export function proxyEnvironment(url: string | undefined): Readonly<Record<string, string>> {
  if (url === undefined) return {};
  const variables = { HTTP_PROXY: url, HTTPS_PROXY: url, NO_PROXY: "127.0.0.1,localhost,::1" };
  const both = Object.entries(variables).flatMap(([name, value]) => [
    [name, value],
    [name.toLowerCase(), value],
  ]);
  return { ...Object.fromEntries(both), NODE_USE_ENV_PROXY: "1" };
}
