import type { EgressTarget, SecretSourceConfig } from "./config.js";

/** `https://api.openai.com/v1`. */
export function urlOfTarget({ scheme, host, port, basePath }: EgressTarget): string {
  const standard = port === (scheme === "https" ? 443 : 80);
  return `${scheme}://${host.includes(":") ? `[${host}]` : host}${standard ? "" : `:${port}`}${basePath}`;
}

/** `https://api.openai.com with Authorization: "Bearer ${secret:openai}"`: all but whether it may be inside, and its port here. */
export function describeTarget(target: EgressTarget): string {
  const headers = target.headers.map(({ name, value }) => {
    const shown = value.map((part) => (typeof part === "string" ? part : `\${secret:${part.secret}}`));
    return `${name}: ${JSON.stringify(shown.join(""))}`;
  });
  const ca = target.ca === undefined ? "" : `, authorities in ${target.ca}`;
  const how = target.connect === true ? " by CONNECT" : "";
  return `${urlOfTarget(target)}${how}${headers.length === 0 ? "" : ` with ${headers.join(", ")}`}${ca}`;
}

/** `keychain`, `OPENAI_API_KEY in /shop/.env.local`, `command op read …`. */
export function describeSource(source: SecretSourceConfig): string {
  switch (source.kind) {
    case "keychain":
      return "keychain";
    case "file":
      return `${source.key} in ${source.path}`;
    case "command":
      // Quoted as JSON, so that two commands never look the same.
      return `command ${JSON.stringify(source.argv)}`;
  }
}
