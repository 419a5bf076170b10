import type { RawHeaders } from "../http/request-headers.js";

export const DECISION_HEADER = "Agentid-Decision";
/** In-process ticket from our outbound to our inbound leg; see `calls-in-flight.ts`. */
export const TICKET_HEADER = "agentid-ticket";

/** What only a relay may say of a caller, and headers that replace the decided method or path. Removed from whatever callers send. */
const ASSERTED_BY_RELAYS = new Set([
  "client-cert",
  "client-cert-chain",
  "forwarded",
  "remote-user",
  "ssl-client-cert",
  "ssl-client-s-dn",
  "ssl-client-verify",
  "true-client-ip",
  "txn-token",
  "via",
  "x-client-cert",
  "x-client-spiffe-id",
  "x-http-method",
  "x-http-method-override",
  "x-method-override",
  "x-original-host",
  "x-original-method",
  "x-original-uri",
  "x-original-url",
  "x-real-ip",
  "x-remote-user",
  "x-rewrite-url",
  "x-ssl-client-cert",
]);

/** RFC 9110 §7.6.1: meant for this connection only. `te`, `trailer`: trailers are dropped, so none is asked for or announced. */
const HOP_BY_HOP = new Set([
  "connection",
  "expect",
  "http2-settings",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/**
 * The caller's headers as they may go on: without hop-by-hop headers and those that `Connection` names, without what only a relay
 * may assert, and without `alsoDropped` (lower case). `Host` is always dropped: the next leg has its own.
 */
export function forwardableRequestHeaders(raw: RawHeaders, alsoDropped?: ReadonlySet<string>): string[] {
  const named = namedByConnection(raw);
  const kept: string[] = [];
  for (let index = 0; index < raw.length; index += 2) {
    const original = raw[index] ?? "";
    const name = original.toLowerCase();
    if (name === "host" || name === "origin" || HOP_BY_HOP.has(name) || named?.has(name)) continue;
    if (alsoDropped?.has(name) || isAssertedByRelays(name)) continue;
    kept.push(original, raw[index + 1] ?? "");
  }
  return kept;
}

/** The upstream's headers as they may go back. `alsoDropped` in lower case. */
export function forwardableResponseHeaders(raw: RawHeaders, alsoDropped?: ReadonlySet<string>): string[] {
  const named = namedByConnection(raw);
  const kept: string[] = [];
  for (let index = 0; index < raw.length; index += 2) {
    const original = raw[index] ?? "";
    const name = original.toLowerCase();
    if (HOP_BY_HOP.has(name) || named?.has(name) || alsoDropped?.has(name)) continue;
    kept.push(original, raw[index + 1] ?? "");
  }
  return kept;
}

function isAssertedByRelays(name: string): boolean {
  const plain = name.includes("_") ? name.replaceAll("_", "-") : name;
  return plain.startsWith("x-forwarded-") || plain.startsWith("agentid-") || ASSERTED_BY_RELAYS.has(plain);
}

function namedByConnection(raw: RawHeaders): Set<string> | undefined {
  let named: Set<string> | undefined;
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index];
    if (name?.length !== 10 || name.toLowerCase() !== "connection") continue;
    const value = raw[index + 1] ?? "";
    if (value === "keep-alive" || value === "close") continue;
    named ??= new Set();
    for (const option of value.split(",")) named.add(option.trim().toLowerCase());
    // A caller may not strip what frames the message or what the policy looked at.
    for (const framing of ["content-length", "content-type", "content-encoding"]) named.delete(framing);
  }
  return named;
}
