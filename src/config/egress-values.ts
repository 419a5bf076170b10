import { isIP } from "node:net";
import { addressClass } from "./address-class.js";
import type { Config, InjectedHeader } from "./config.js";
import { suggestion } from "./nearest.js";
import type { ValueCheck } from "./values.js";

/** What single values of `egress` and `secrets` must be; as in `values.ts`. */

export const SECRET_NAME_PATTERN = /^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/;

export const checkSecretName: ValueCheck = (name) =>
  SECRET_NAME_PATTERN.test(name)
    ? undefined
    : "a secret's name holds only letters, digits, and . _ - inside, at most 63 characters";

/**
 * An address of which every parser makes the same: exactly as the URL standard writes it. That alone refuses hosts as decimal, octal or hex
 * numbers, short IPv4, look-alike letters, percent-encoding, backslashes and paths with dots.
 */
export const checkEgressUrl: ValueCheck = (text) => {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return "not a URL; write it as https://api.openai.com";
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    return `only https://, and http:// on this machine, not ${url.protocol}//`;
  }
  if (url.username !== "" || url.password !== "" || /^[a-z]+:\/\/[^/?#]*@/i.test(text)) {
    return "an address must not hold a user name or password";
  }
  if (url.search !== "" || url.hash !== "" || /[?#]/.test(text)) return "an address must not hold a query or fragment";
  if (url.hostname.endsWith(".")) return "the host must not end with a dot";
  const path = url.pathname.replace(/\/+$/, "");
  const written = `${url.protocol}//${url.host}${path}`;
  if (text !== written) return `write it as ${written}`;
  if (!PLAIN_PATH.test(path)) return "a base path holds only letters, digits and - . _ ~ between its slashes";
  return undefined;
};

const PLAIN_PATH = /^(?:\/[A-Za-z0-9\-_~]+(?:\.[A-Za-z0-9\-_~]+)*)*$/;

/** What `private` must allow; `text` is what `checkEgressUrl` accepts. */
export function needsPrivate(text: string, isPrivate: boolean): string | undefined {
  const url = new URL(text);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const name = host === "localhost" || host.endsWith(".localhost");
  const is = isIP(host) === 0 ? (name ? "loopback" : "public") : addressClass(host);
  if (url.protocol === "http:" && is !== "loopback") {
    return `plain http to ${url.hostname} could be read and changed on the way: write https://`;
  }
  if (is === "public" || isPrivate) return undefined;
  return `${url.hostname} is no public address (${is}): only with \`private: true\``;
}

/** What a target that says `connect` asks for and cannot have; its address is what `checkEgressUrl` accepts. */
export function needsMoreThanConnect(target: {
  readonly url: string;
  readonly header?: unknown;
  readonly ca?: unknown;
  readonly listen?: unknown;
}): { readonly key: "url" | "header" | "ca" | "listen"; readonly why: string } | undefined {
  const { protocol, pathname } = new URL(target.url);
  const no = (key: "url" | "header" | "ca" | "listen", why: string) => ({ key, why: `${ONLY_BY_HOST}: ${why}` });
  if (protocol !== "https:") return no("url", "what is not TLS would be open to whoever carries it; write https://");
  if (pathname !== "/") return no("url", "a path is not seen, so none can be asked for");
  if (target.header !== undefined) return no("header", "the caller's TLS is not opened, so nothing can be added");
  if (target.ca !== undefined) return no("ca", "it is the caller who verifies the target");
  if (target.listen !== undefined) return no("listen", "one port serves all such targets; write proxy: { listen: … }");
  return undefined;
}

const ONLY_BY_HOST = "CONNECT can only decide by host";

/** RFC 9110 §5.6.2. */
const TOKEN = /^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$/;
const NOT_INJECTED = new Set([
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "expect",
  "host",
  "keep-alive",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

export const checkInjectedHeader: ValueCheck = (name) => {
  if (!TOKEN.test(name)) return "not the name of a header";
  return NOT_INJECTED.has(name.toLowerCase())
    ? "this header belongs to the message itself and is not set here"
    : undefined;
};

/** Headers whose value is itself what a caller would have to be given. */
const CARRIES_CREDENTIAL = /authorization|cookie|api-?key|token|secret|password|credential/i;

export function checkInjectedValue(header: string, text: string): string | undefined {
  if (!/^[\t\x20-\x7e\x80-\xff]+$/.test(text) || text.trim() !== text) {
    return "not the value of a header: printable Latin-1 characters, without blanks around them";
  }
  for (const [whole, inside = ""] of text.matchAll(/\$\{([^}]*)\}?/g)) {
    const name = inside.replace(/^secret:/, "");
    if (!whole.endsWith("}") || !inside.startsWith("secret:")) {
      return `${whole} is not known here${suggestion(inside.split(":")[0] ?? "", ["secret"])} Write \${secret:NAME}`;
    }
    const wrong = checkSecretName(name);
    if (wrong !== undefined) return `${JSON.stringify(name)}: ${wrong}`;
  }
  return CARRIES_CREDENTIAL.test(header) && !text.includes("${secret:")
    ? `the value of ${header} would stand in agentid.yaml for everybody to read: write \${secret:NAME}`
    : undefined;
}

/** `Bearer ${secret:openai}` → `Bearer `, the secret openai. */
export function partsOfValue(text: string): InjectedHeader["value"] {
  const parts = text.split(/(\$\{secret:[^}]+\})/).filter((part) => part !== "");
  return parts.map((part) => {
    const name = /^\$\{secret:([^}]+)\}$/.exec(part)?.[1];
    return name === undefined ? part : { secret: name };
  });
}

/** Names of the secrets in a header's value. */
export function secretsIn({ value }: InjectedHeader): readonly string[] {
  return value.flatMap((part) => (typeof part === "string" ? [] : [part.secret]));
}

/** Environment variables under which the secrets of `egress` are most likely known: the key in their file, and their own name. */
export function secretVariables({ secrets }: Config): string[] {
  return Object.entries(secrets).flatMap(([name, source]) => {
    const plain = name.toUpperCase().replaceAll(/[^A-Z0-9]/g, "_");
    return [plain, `${plain}_KEY`, ...(source.kind === "file" ? [source.key] : [])];
  });
}
