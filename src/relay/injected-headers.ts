import type { InjectedHeader } from "../config/config.js";
import { secretsIn } from "../config/egress-values.js";

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
 * The caller's `headers` (flat list) as they go out to a target with `injected`: without those that the relay adds itself, and without other credentials
 * where it adds one. Where it adds none, a caller's own credentials are its own business.
 */
export function withoutCredentials(headers: readonly string[], injected: readonly InjectedHeader[]): string[] {
  const dropped = new Set(injected.map(({ name }) => plainName(name)));
  if (injected.some((header) => secretsIn(header).length > 0)) for (const name of CREDENTIALS) dropped.add(name);
  const kept: string[] = [];
  for (let index = 0; index < headers.length; index += 2) {
    const [name = "", value = ""] = headers.slice(index, index + 2);
    if (!dropped.has(plainName(name))) kept.push(name, value);
  }
  return kept;
}

/** Servers behind CGI and WSGI cannot tell `x_api_key` from `x-api-key`. */
function plainName(name: string): string {
  return name.toLowerCase().replaceAll("_", "-");
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
