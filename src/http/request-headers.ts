import { byName } from "./by-name.js";
import { Refusal } from "./refusal.js";

/** Headers as they came, in order: name, value, name, value (`IncomingMessage.rawHeaders`). */
export type RawHeaders = readonly string[];

const MAX_HEADERS = 100;

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
  "idempotency-key",
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
  "x-api-key",
]);
const MCP_PARAMETER = "mcp-param-";
/**
 * What clients offer in passing, with each request and whoever answers: Java's and curl's HTTP/2, Apache's TLS (RFC 2817). A server may go on in HTTP/1.1
 * (RFC 9110 §7.8), and none of it is sent on. Whoever asks for anything else needs it.
 */
const OFFERED_IN_PASSING = /^(?:h2c|tls\/\d\.\d)$/;

/**
 * `checkRequestHeaders`, after the version: Node's parser takes HTTP/0.9 and HTTP/2.0 on a request line too. Throws Refusal `http-malformed` (505) and
 * `transfer-encoding` as well.
 */
export function checkRequestHead(
  { httpVersion, rawHeaders }: { httpVersion: string; rawHeaders: RawHeaders },
  switchesTo?: string,
): void {
  if (httpVersion !== "1.1" && httpVersion !== "1.0") {
    throw new Refusal("http-malformed", 505, "the only versions of HTTP on this listener are 1.1 and 1.0");
  }
  // RFC 9112 §6.1: the framing of such a message is faulty, whoever sent it on may not have known the coding.
  if (httpVersion === "1.0" && headerOf(rawHeaders, "transfer-encoding") !== undefined) {
    throw new Refusal("transfer-encoding", 400, "HTTP/1.0 has no transfer encoding");
  }
  checkRequestHeaders(rawHeaders, switchesTo);
}

/**
 * Checks what no later step may have to guess about. Throws Refusal: `header-count`, `header-duplicate`, `header-underscore-twin`,
 * `transfer-encoding`, `expectation`, `upgrade-refused` for any `Upgrade` but to `switchesTo` (lower case) and those that are let be.
 */
export function checkRequestHeaders(raw: RawHeaders, switchesTo?: string): void {
  if (raw.length / 2 > MAX_HEADERS) {
    throw new Refusal("header-count", 431, `the request has more than ${MAX_HEADERS} headers`);
  }
  const seen: string[] = [];
  for (let index = 0; index < raw.length; index += 2) {
    const { name, isTwin, isSingle } = requestHeader(raw[index] ?? "");
    if (isTwin) throw new Refusal("header-underscore-twin", 400, `the header ${name} can be taken for another`);
    if (isSingle) {
      if (seen.includes(name)) throw new Refusal("header-duplicate", 400, `the header ${name} is given twice`);
      seen.push(name);
    }
    if (name === "transfer-encoding" && raw[index + 1]?.toLowerCase() !== "chunked") {
      throw new Refusal("transfer-encoding", 400, "the only transfer encoding is chunked");
    }
    if (name === "expect" && raw[index + 1]?.toLowerCase() !== "100-continue") {
      throw new Refusal("expectation", 417, "the only expectation is 100-continue");
    }
    if (name === "upgrade") {
      const to = (raw[index + 1] ?? "").toLowerCase();
      if (to !== switchesTo && !OFFERED_IN_PASSING.test(to)) {
        throw new Refusal("upgrade-refused", 501, "the relay does not switch to this protocol here");
      }
    }
  }
}

/** A header of a request by its name, in whatever case that is written. */
interface RequestHeader {
  /** In lower case. */
  readonly name: string;
  /** CGI and WSGI servers cannot tell it from one of which there may be one alone: `content_type`, `content.type`. */
  readonly isTwin: boolean;
  /** There may be one alone. */
  readonly isSingle: boolean;
}

const requestHeader = byName((written): RequestHeader => {
  const name = written.toLowerCase();
  const plain = plainName(name);
  return { name, isTwin: plain !== name && isSingleName(plain), isSingle: isSingleName(name) };
});

/** `name` (lower case) as servers see it that put headers into variables: every other character is one. */
export function plainName(name: string): string {
  return /[^a-z0-9-]/.test(name) ? name.replaceAll(/[^a-z0-9-]/g, "-") : name;
}

function isSingleName(name: string): boolean {
  return SINGLE.has(name) || name.startsWith(MCP_PARAMETER);
}

/** The single value of `name` (lower case), or undefined. Call after `checkRequestHeaders`. */
export function headerOf(raw: RawHeaders, name: string): string | undefined {
  for (let index = 0; index < raw.length; index += 2) {
    const given = raw[index];
    if (given?.length === name.length && given.toLowerCase() === name) return raw[index + 1];
  }
  return undefined;
}
