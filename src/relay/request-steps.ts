import { BodyBytes } from "../http/body-bytes.js";
import { checkHostAndOrigin, type ListenerNames } from "../http/host-check.js";
import type { IncomingRequest } from "../http/incoming-request.js";
import { Refusal } from "../http/refusal.js";
import { checkRequestHead, headerOf } from "../http/request-headers.js";
import { isLong } from "../http/strict-json.js";
import type { Clock } from "../platform/clock.js";
import { hasRoomInTurn } from "../platform/turns.js";
import type { Exchange, StepResult } from "./exchange.js";
import { pauseOf, readLongMessage } from "./long-message.js";
import { parseMcpMessage } from "./mcp-message.js";
import { requestTarget } from "./request-target.js";
import { checkWebSocketHandshake } from "./websocket.js";

const MAX_MCP_BODY_BYTES = 4 * 1024 * 1024;
const BODY_DEADLINE_MS = 30_000;
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"]);

/** Reads the head of the request into the one form that the later steps decide on and forward. */
export function parseRequest(names: () => ListenerNames): (exchange: Exchange) => StepResult {
  return (exchange) => {
    const { rawHeaders, method, url } = exchange.request;
    checkRequestHead(exchange.request, exchange.webSocket && "websocket");
    checkHostAndOrigin(rawHeaders, names());
    if (exchange.webSocket !== undefined) checkWebSocketHandshake(exchange);
    if (!METHODS.has(method)) throw new Refusal("method-refused", 501, `the relay does not carry ${method}`);
    exchange.target = requestTarget(url);
    return undefined;
  };
}

/** For MCP services: reads and parses the message of a POST; other methods may only open or end a stream. */
export function readMcpMessage(clock: Clock): (exchange: Exchange) => StepResult | Promise<StepResult> {
  return (exchange) => {
    if (exchange.service.protocol !== "mcp") return undefined;
    const { method, rawHeaders } = exchange.request;
    if (method === "POST") return readMessage(exchange, clock);
    const opensStream = method === "GET" && headerOf(rawHeaders, "accept")?.includes("text/event-stream") === true;
    if (!opensStream && method !== "DELETE") {
      throw new Refusal("method-refused", 405, "an MCP service takes POST, GET for a stream of events, and DELETE");
    }
    if (exchange.request.hasBody) throw new Refusal("method-refused", 400, `${method} carries no body in MCP`);
    return undefined;
  };
}

async function readMessage(exchange: Exchange, clock: Clock): Promise<StepResult> {
  const { request } = exchange;
  const type = headerOf(request.rawHeaders, "content-type") ?? "";
  if (!/^application\/json(?:\s*;\s*charset="?utf-8"?)?\s*$/i.test(type)) {
    throw new Refusal("content-type", 415, "an MCP message is application/json in UTF-8");
  }
  if (headerOf(request.rawHeaders, "content-encoding") !== undefined) {
    throw new Refusal("content-encoding", 415, "an encoded body cannot be decided on: send it plain");
  }
  const most = { bytes: MAX_MCP_BODY_BYTES, words: "an MCP message may have at most 4 MiB" };
  const body = await readBody(request, clock, most);
  if (isLong(body)) await readLongMessage(exchange, body, clock);
  else {
    if (!hasRoomInTurn(body.length)) await pauseOf(exchange)();
    exchange.message = parseMcpMessage(body.bytes(), request.rawHeaders);
  }
  return undefined;
}

/** The whole body. Rejects with Refusal `body-too-large`, `body-slow`, `http-malformed`. */
export function readBody(
  request: IncomingRequest,
  clock: Clock,
  most: { readonly bytes: number; readonly words: string },
): Promise<BodyBytes> {
  return new Promise((resolve, reject) => {
    const body = new BodyBytes();
    const refuse = (refusal: Refusal) => {
      cancel();
      request.drop();
      reject(refusal);
    };
    const cancel = clock.after(BODY_DEADLINE_MS, () =>
      refuse(new Refusal("body-slow", 408, "the body did not arrive in time")),
    );
    request.read({
      data(chunk) {
        body.add(chunk);
        if (body.length > most.bytes) refuse(new Refusal("body-too-large", 413, most.words));
      },
      end() {
        cancel();
        resolve(body);
      },
      failed: (cause) => refuse(new Refusal("http-malformed", 400, "the body broke off", { cause })),
    });
  });
}
