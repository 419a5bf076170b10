import type { InjectedHeader } from "../config/config.js";

/** What vendors take credentials from. A caller that brings its own would send what it was allowed to send into another account. */
const CREDENTIALS = [
  "api-key",
  "apikey",
  "authorization",
  "cookie",
  "dpop",
  "ocp-apim-subscription-key",
  "private-token",
  "x-api-key",
  "x-api-token",
  "x-access-token",
  "x-amz-security-token",
  "x-auth-token",
  "x-goog-api-key",
];

/**
 * Names (lower case) of the caller's headers that do not go out to a target with `injected`: those that the relay adds itself, and other credentials where
 * it adds one. With a target that nothing is added for, a caller's own credentials are its own business.
 */
export function droppedForTarget(injected: readonly InjectedHeader[]): ReadonlySet<string> {
  const own = injected.map(({ name }) => name.toLowerCase());
  const addsSecret = injected.some(({ value }) => value.some((part) => typeof part !== "string"));
  return new Set([...own, ...(addsSecret ? CREDENTIALS : [])].flatMap((name) => [name, ...twinsOf(name)]));
}

/** Servers behind CGI and WSGI cannot tell `x_api_key` from `x-api-key`. */
function twinsOf(name: string): readonly string[] {
  if (!/[-_]/.test(name)) return [];
  const words = name.split(/[-_]/);
  // Every mixture of the two, for names of a few words.
  return words
    .slice(1)
    .reduce<readonly string[]>(
      (names, word) => names.flatMap((each) => [`${each}-${word}`, `${each}_${word}`]),
      [words[0] ?? ""],
    );
}

export interface Injection {
  /** Flat list of names and values. */
  readonly headers: readonly string[];
  /** `headers` of an answer (flat list) without what was injected. */
  redact(headers: readonly string[]): string[];
}

/** The headers to add, with every secret in its place. */
export function injectionOf(injected: readonly InjectedHeader[], secrets: ReadonlyMap<string, string>): Injection {
  const headers = injected.flatMap(({ name, value }) => [
    name,
    value.map((part) => (typeof part === "string" ? part : (secrets.get(part.secret) ?? ""))).join(""),
  ]);
  // As it is, and as it stands in an address or in Basic authentication. The longest first: one may be part of another.
  const forms = [...new Set([...secrets.values()].flatMap(formsOf))].sort((one, other) => other.length - one.length);
  const isIn = (text: string) => forms.some((form) => text.includes(form));
  const clean = (text: string) => forms.reduce((rest, form) => rest.replaceAll(form, "[redacted]"), text);
  return {
    headers,
    redact(answer) {
      const shown: string[] = [];
      for (let index = 0; index < answer.length; index += 2) {
        const [name = "", value = ""] = answer.slice(index, index + 2);
        if (isIn(name)) continue;
        // A number that frames the body is none of a secret's.
        shown.push(name, isIn(value) && name.toLowerCase() !== "content-length" ? clean(value) : value);
      }
      return shown;
    },
  };
}

function formsOf(secret: string): readonly string[] {
  const bytes = Buffer.from(secret, "latin1");
  return [secret, encodeURIComponent(secret), bytes.toString("base64"), bytes.toString("base64url")];
}
