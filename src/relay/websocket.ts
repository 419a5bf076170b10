import { createHash } from "node:crypto";
import type { IncomingRequest } from "../http/incoming-request.js";
import { Refusal } from "../http/refusal.js";
import { headerOf, type RawHeaders } from "../http/request-headers.js";
import type { Exchange } from "./exchange.js";
import type { RunningService } from "./running-service.js";

/** RFC 6455 §1.3. */
const ACCEPT_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/** Base64 of 16 bytes (RFC 6455 §4.1), in its only form. */
const KEY = /^[A-Za-z0-9+/]{21}[AQgw]==$/;
/** What a handshake is decided by: a second one would be a second meaning. */
const SINGLE = ["sec-websocket-key", "sec-websocket-version"] as const;

/** True for a request that is to be opened as a WebSocket. Any other `Upgrade` stays a request, and is refused as one. */
export function asksForWebSocket({ protocol, upstream }: RunningService, { rawHeaders }: IncomingRequest): boolean {
  if (protocol !== "http" || upstream.kind === "egress") return false;
  return headerOf(rawHeaders, "upgrade")?.toLowerCase() === "websocket";
}

/**
 * The client's half of the handshake as RFC 6455 §4.2.1 has it, and nothing else. Throws Refusal `websocket-handshake`; of another version (426) the
 * answer names ours (§4.4).
 */
export function checkWebSocketHandshake({ request, response }: Exchange): void {
  const { rawHeaders: raw, method, httpVersion } = request;
  if (method !== "GET" || httpVersion !== "1.1") throw refused("a WebSocket is opened by GET in HTTP/1.1");
  for (const name of SINGLE) {
    if (countOf(raw, name) !== 1) throw refused(`a WebSocket is opened with ${name} once`);
  }
  // Whatever else it named would be taken out on the way.
  const options = tokensOf(raw, "connection");
  if (!options.includes("upgrade") || options.some((one) => one !== "upgrade" && one !== "keep-alive")) {
    throw refused("a WebSocket is opened with Connection: Upgrade");
  }
  // Java's client says of every GET that it has none.
  if ((headerOf(raw, "content-length") ?? "0") !== "0" || headerOf(raw, "transfer-encoding") !== undefined) {
    throw refused("a WebSocket is opened without a body");
  }
  if (!KEY.test(headerOf(raw, "sec-websocket-key") ?? "")) throw refused("Sec-WebSocket-Key is no key");
  if (headerOf(raw, "sec-websocket-version") !== "13") {
    response.setHeader("Sec-WebSocket-Version", "13");
    throw new Refusal("websocket-handshake", 426, "the relay carries version 13 of WebSocket");
  }
}

/** True if the service has accepted the handshake with `key` (RFC 6455 §4.1, the client's checks 2 to 4). */
export function acceptsWebSocket(key: string, raw: RawHeaders): boolean {
  const wanted = createHash("sha1").update(`${key}${ACCEPT_SUFFIX}`).digest("base64");
  return (
    headerOf(raw, "upgrade")?.toLowerCase() === "websocket" &&
    tokensOf(raw, "connection").includes("upgrade") &&
    countOf(raw, "sec-websocket-accept") === 1 &&
    headerOf(raw, "sec-websocket-accept") === wanted
  );
}

function tokensOf(raw: RawHeaders, name: string): readonly string[] {
  const values = raw.filter((_, index) => index % 2 === 1 && raw[index - 1]?.toLowerCase() === name);
  return values.flatMap((value) => value.split(",")).map((token) => token.trim().toLowerCase());
}

function countOf(raw: RawHeaders, name: string): number {
  return raw.filter((one, index) => index % 2 === 0 && one.toLowerCase() === name).length;
}

function refused(message: string): Refusal {
  return new Refusal("websocket-handshake", 400, message);
}
