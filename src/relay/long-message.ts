import type { BodyBytes } from "../http/body-bytes.js";
import { longBodies } from "../http/long-bodies.js";
import { Refusal } from "../http/refusal.js";
import type { JsonObject } from "../http/strict-json.js";
import type { Clock } from "../platform/clock.js";
import { nextTurn, type Pause } from "../platform/turns.js";
import { jsonInTurns } from "../policy/request-digest.js";
import { type Exchange, filled } from "./exchange.js";
import { parseMcpMessageInTurns } from "./mcp-message.js";
import { tracedMessage } from "./tracing.js";

const NOTHING: JsonObject = Object.freeze({});

/** Waits for the next turn in a call's long work. Rejects with Refusal `caller-gone`: nobody's call is worked on when its caller has left. */
export function pauseOf({ request, response }: Pick<Exchange, "request" | "response">): Pause {
  return async () => {
    await nextTurn();
    if (request.socket.destroyed || response.destroyed) {
      throw new Refusal("caller-gone", 400, "the caller went away before it was decided");
    }
  };
}

/**
 * Reads a long message, and writes it out as it will go on, without keeping the event loop. Before it is decided: between a decision, its record and what
 * is sent on there is no time for anything.
 */
export function readLongMessage(exchange: Exchange, body: BodyBytes, clock: Clock): Promise<void> {
  const { request, response } = exchange;
  const caller = filled(exchange.caller, "caller").id.toString();
  return longBodies.read({ caller, connection: response, clock }, async () => {
    const pause = pauseOf(exchange);
    const message = await parseMcpMessageInTurns(body, request.rawHeaders, pause);
    // What is refused from here on is answered to its id.
    exchange.message = message;
    await pause();
    const written = await jsonInTurns(tracedMessage(message, exchange.span?.()), pause);
    exchange.message = { ...message, written };
  });
}

/** What a long message holds is not kept while its answer is waited for: it goes on as it was written out. */
export function letGo(exchange: Exchange): void {
  const { message } = exchange;
  if (message?.written === undefined) return;
  if (message.kind === "response") {
    exchange.message = { ...message, json: NOTHING };
    return;
  }
  const { name, uri } = message.params;
  const params: JsonObject = { ...(name !== undefined && { name }), ...(uri !== undefined && { uri }) };
  exchange.message = { ...message, params, json: NOTHING };
}
