import { byName } from "../http/by-name.js";
import { plainName, type RawHeaders } from "../http/request-headers.js";

export const DECISION_HEADER = "Agentid-Decision";
/** In-process ticket from our outbound to our inbound leg; see `calls-in-flight.ts`. */
export const TICKET_HEADER = "agentid-ticket";

/** What only a relay may say of a caller, and headers that replace the decided method or path. Removed from whatever callers send. */
const ASSERTED_BY_RELAYS = new Set([
  "cf-connecting-ip",
  "client-cert",
  "client-cert-chain",
  "client-ip",
  "fastly-client-ip",
  "forwarded",
  "remote-addr",
  "remote-user",
  "true-client-ip",
  "txn-token",
  "via",
  "x-authenticated-user",
  "x-client-cert",
  "x-client-ip",
  "x-client-spiffe-id",
  "x-cluster-client-ip",
  "x-forwarded",
  "x-host",
  "x-http-method",
  "x-http-method-override",
  "x-http-host-override",
  "x-method-override",
  "x-real-ip",
  "x-remote-user",
  "x-rewrite-url",
  "x-spiffe-id",
  "x-webauth-user",
]);
/** Families of them: Envoy's, nginx' and Apache's names for a client's certificate, oauth2-proxy's for its user. */
const ASSERTED_FAMILY =
  /^(?:agentid|ssl-client|x-auth-request|x-envoy|x-forwarded|x-original|x-ssl-client|x-tls-client)-/;

/** RFC 9110 §7.6.1: meant for this connection only. `te`, `trailer`: trailers are dropped, so none is asked for or announced. */
const HOP_BY_HOP = new Set([
  "connection",
  "expect",
  "http2-settings",
  "keep-alive",
  // No standard knows it: a CGI service would take it for its environment's HTTP_PROXY.
  "proxy",
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
 * may assert, and without `alsoDropped` (lower case). `Host` is always dropped: the next leg has its own, `host`, as the first (RFC 9110 §7.2).
 */
export function forwardableRequestHeaders(raw: RawHeaders, alsoDropped?: ReadonlySet<string>, host?: string): string[] {
  const named = namedByConnection(raw);
  const kept: string[] = host === undefined ? [] : ["Host", host];
  for (let index = 0; index < raw.length; index += 2) {
    const original = raw[index] ?? "";
    const { name, staysHere } = ofRequest(original);
    if (staysHere || named?.has(name) || alsoDropped?.has(name)) continue;
    kept.push(original, raw[index + 1] ?? "");
  }
  return kept;
}

/** The upstream's headers as they may go back: without `Alt-Svc` too (RFC 7838), which says where else to ask. `alsoDropped` in lower case. */
export function forwardableResponseHeaders(raw: RawHeaders, alsoDropped?: ReadonlySet<string>): string[] {
  const named = namedByConnection(raw);
  const kept: string[] = [];
  for (let index = 0; index < raw.length; index += 2) {
    const original = raw[index] ?? "";
    const { name, staysHere } = ofAnswer(original);
    if (staysHere || named?.has(name) || alsoDropped?.has(name)) continue;
    kept.push(original, raw[index + 1] ?? "");
  }
  return kept;
}

/** A header by its name, in whatever case that is written. */
interface PassingHeader {
  /** In lower case. */
  readonly name: string;
  /** It does not go on. */
  readonly staysHere: boolean;
}

const ofRequest = byName((written): PassingHeader => {
  const name = written.toLowerCase();
  const isOurs = name === "host" || name === "origin";
  return { name, staysHere: isOurs || HOP_BY_HOP.has(name) || isAssertedByRelays(name) };
});

const ofAnswer = byName((written): PassingHeader => {
  const name = written.toLowerCase();
  return { name, staysHere: name === "alt-svc" || HOP_BY_HOP.has(name) };
});

function isAssertedByRelays(name: string): boolean {
  const plain = plainName(name);
  return ASSERTED_BY_RELAYS.has(plain) || ASSERTED_FAMILY.test(plain) || (plain !== name && HOP_BY_HOP.has(plain));
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
