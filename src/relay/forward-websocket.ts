import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { CodedError } from "../coded-error.js";
import { Refusal } from "../http/refusal.js";
import { headerOf } from "../http/request-headers.js";
import { request } from "../platform/node-http.js";
import type { End } from "./byte-relay.js";
import { recordOutcomeAtOnce, showEnd } from "./decision-record.js";
import { answerTimeoutOf, type Exchange, filled, type RelayParts } from "./exchange.js";
import { type AnswerHeaders, asRefusal } from "./forward.js";
import { DECISION_HEADER, forwardableResponseHeaders } from "./headers.js";
import { namedFromHere } from "./own-address.js";
import { continuedHeaders, endSpan } from "./tracing.js";
import { acceptsWebSocket } from "./websocket.js";

/** Where a WebSocket goes on. */
interface WebSocketHop {
  /** Opens a connection for this WebSocket alone. */
  readonly connect: () => Promise<Socket>;
  readonly host: string;
  /** Headers besides the caller's own; flat list of names and values. */
  readonly added: readonly string[];
}

const DECISION_ONLY = new Set([DECISION_HEADER.toLowerCase()]);
const SWITCH = ["Connection", "Upgrade", "Upgrade", "websocket"];

/**
 * Opens the exchange's WebSocket at the next hop. Once both have accepted it, bytes are carried both ways until it is closed; any other answer than 101
 * goes back as it is. Resolves when it is over. Rejects as `forward` does, while nothing has gone back.
 */
export async function forwardWebSocket(parts: RelayParts, exchange: Exchange, hop: WebSocketHop): Promise<"answered"> {
  const { name } = exchange.service;
  try {
    const wire = await hop.connect();
    const answer = await handshake(parts, exchange, hop, wire);
    if (answer instanceof CallerGone) endWithoutCaller(parts, exchange);
    else if ("switched" in answer) await switchProtocols(parts, exchange, answer.switched, answer.upstream);
    else await passAnswer(parts, exchange, answer.plain, namedFromHere(exchange, hop.host));
    return "answered";
  } catch (thrown) {
    throw asRefusal(thrown, name);
  }
}

type Answer =
  | { readonly switched: IncomingMessage; readonly upstream: End }
  | { readonly plain: IncomingMessage }
  | CallerGone;

class CallerGone {}

function handshake(parts: RelayParts, exchange: Exchange, hop: WebSocketHop, wire: Socket): Promise<Answer> {
  const { request: asked, response, span } = exchange;
  const key = headerOf(asked.rawHeaders, "sec-websocket-key") ?? "";
  return new Promise((resolve, reject) => {
    const sent = request({
      createConnection: () => wire,
      setHost: false,
      method: "GET",
      path: filled(exchange.target, "target").raw,
      headers: [...continuedHeaders(asked.rawHeaders, span?.()), "Host", hop.host, ...hop.added, ...SWITCH],
      maxHeaderSize: 32 * 1024,
    });
    const settle = (then: () => void) => {
      cancelTimeout();
      response.off("close", gone);
      then();
    };
    const fail = (error: Error) => {
      wire.destroy();
      settle(() => reject(error));
    };
    const gone = () => {
      wire.destroy();
      settle(() => resolve(new CallerGone()));
    };
    const cancelTimeout = parts.clock.after(answerTimeoutOf(parts), () =>
      fail(new CodedError("answer-timeout", "no answer to the handshake")),
    );
    sent.on("error", fail);
    sent.once("upgrade", (switched, _socket, head) => {
      if (!acceptsWebSocket(key, switched.rawHeaders)) fail(notAccepted(exchange));
      else settle(() => resolve({ switched, upstream: endOf(wire, head) }));
    });
    sent.once("response", (plain) => {
      // What Node does not take for a switch: without an Upgrade.
      if (plain.statusCode === 101) fail(notAccepted(exchange));
      else settle(() => resolve({ plain }));
    });
    if (asked.socket.destroyed) gone();
    else {
      response.once("close", gone);
      sent.end();
    }
  });
}

function notAccepted({ service }: Exchange): Refusal {
  return new Refusal("upstream-response", 502, `${service.name} switched protocols without accepting the WebSocket`);
}

async function switchProtocols(
  parts: RelayParts,
  exchange: Exchange,
  switched: IncomingMessage,
  upstream: End,
): Promise<void> {
  const { response } = exchange;
  try {
    recordOutcomeAtOnce(parts, exchange, { status: 101 });
  } catch (unwritable) {
    upstream.reset();
    throw unwritable;
  }
  response.writeHead(101, [...answerHeaders(exchange, switched), ...SWITCH]);
  response.flushHeaders();
  const caller = endOf(response.handOver(), filled(exchange.webSocket, "webSocket").head);
  endSpan(
    exchange,
    await filled(parts.webSockets, "webSockets").carry(caller, upstream, exchange.decision !== undefined),
  );
  showEnd(parts, exchange, { status: 101 });
}

/** `head` has been read from it already, behind its handshake. */
function endOf(stream: Duplex, head: Buffer): End {
  if (head.length > 0) stream.unshift(head);
  return { stream, reset: () => stream.destroy() };
}

async function passAnswer(
  parts: RelayParts,
  exchange: Exchange,
  plain: IncomingMessage,
  named: AnswerHeaders,
): Promise<void> {
  const { response } = exchange;
  const { statusCode: status = 502 } = plain;
  try {
    recordOutcomeAtOnce(parts, exchange, { status });
  } catch (unwritable) {
    plain.destroy();
    throw unwritable;
  }
  response.writeHead(status, named(answerHeaders(exchange, plain)));
  response.beLast();
  const over = await new Promise<{ error?: string }>((resolve) => {
    plain.once("error", () => {
      // Only a broken connection tells the caller that the rest is missing.
      response.destroy();
      resolve({ error: "upstream-failed" });
    });
    response.once("close", () => {
      plain.destroy();
      resolve({ error: "caller-gone" });
    });
    response.once("finish", () => resolve({}));
    plain.on("data", (chunk: Buffer) => {
      if (response.write(chunk)) return;
      plain.pause();
      response.once("drain", () => plain.resume());
    });
    plain.once("end", () => response.end());
  });
  showEnd(parts, exchange, { status, ...over });
}

function endWithoutCaller(parts: RelayParts, exchange: Exchange): void {
  recordOutcomeAtOnce(parts, exchange, { error: "caller-gone" });
  showEnd(parts, exchange, { error: "caller-gone" });
}

/** A leg that did not decide hands the decision of the other leg on. */
function answerHeaders({ decision }: Exchange, { rawHeaders }: IncomingMessage): string[] {
  if (decision === undefined) return forwardableResponseHeaders(rawHeaders);
  return [...forwardableResponseHeaders(rawHeaders, DECISION_ONLY), DECISION_HEADER, decision.id];
}
