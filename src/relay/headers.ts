import { Refusal } from "./refusal.js";

/** Headers as they came, in order: name, value, name, value (`IncomingMessage.rawHeaders`). */
export type RawHeaders = readonly string[];

const MAX_HEADERS = 100;
export const DECISION_HEADER = "Agentid-Decision";
/** In-process ticket from our outbound to our inbound leg; see `calls-in-flight.ts`. */
export const TICKET_HEADER = "agentid-ticket";

/**
 * Headers of which a second one would be a second meaning: Node keeps the first of some, the last of others and joins the rest,
 * and the upstream may choose otherwise.
 */
const SINGLE = new Set([
  "authorization",
  "content-encoding",
  "content-length",
  "content-type",
  "cookie",
  "dpop",
  "expect",
  "host",
  "if-match",
  "if-none-match",
  "if-modified-since",
  "if-unmodified-since",
  "last-event-id",
  "mcp-method",
  "mcp-name",
  "mcp-protocol-version",
  "mcp-session-id",
  "origin",
  "proxy-authorization",
  "range",
  "referer",
  "sec-fetch-site",
  "traceparent",
  "transfer-encoding",
  "upgrade",
  "user-agent",
]);

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
 * Checks what no later step may have to guess about. Throws Refusal: `header-count`, `header-duplicate`, `header-underscore-twin`,
 * `transfer-encoding`, `upgrade-refused`.
 */
export function checkRequestHeaders(raw: RawHeaders): void {
  if (raw.length / 2 > MAX_HEADERS) {
    throw new Refusal("header-count", 431, `the request has more than ${MAX_HEADERS} headers`);
  }
  const seen = new Set<string>();
  for (let index = 0; index < raw.length; index += 2) {
    const name = (raw[index] ?? "").toLowerCase();
    if (SINGLE.has(name)) {
      if (seen.has(name)) throw new Refusal("header-duplicate", 400, `the header ${name} is given twice`);
      seen.add(name);
    } else if (name.includes("_") && SINGLE.has(name.replaceAll("_", "-"))) {
      // CGI and WSGI servers cannot tell `content_type` from `content-type`.
      throw new Refusal("header-underscore-twin", 400, `the header ${name} can be taken for another`);
    }
    if (name === "transfer-encoding" && raw[index + 1]?.toLowerCase() !== "chunked") {
      throw new Refusal("transfer-encoding", 400, "the only transfer encoding is chunked");
    }
    if (name === "upgrade") {
      throw new Refusal("upgrade-refused", 501, "the relay carries HTTP only: it does not switch protocols");
    }
  }
}

/** The single value of `name` (lower case), or undefined. Call after `checkRequestHeaders`. */
export function headerOf(raw: RawHeaders, name: string): string | undefined {
  for (let index = 0; index < raw.length; index += 2) {
    if (raw[index]?.toLowerCase() === name) return raw[index + 1];
  }
  return undefined;
}

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
