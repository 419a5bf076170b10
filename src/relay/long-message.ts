import { Refusal } from "../http/refusal.js";
import { nextTurn, type Pause } from "../platform/turns.js";
import { jsonInTurns } from "../policy/request-digest.js";
import type { Exchange } from "./exchange.js";
import { parseMcpMessageInTurns } from "./mcp-message.js";
import { tracedMessage } from "./tracing.js";

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
export async function readLongMessage(exchange: Exchange, body: Buffer): Promise<void> {
  const pause = pauseOf(exchange);
  const message = await parseMcpMessageInTurns(body, exchange.request.rawHeaders, pause);
  // What is refused from here on is answered to its id.
  exchange.message = message;
  await pause();
  const written = await jsonInTurns(tracedMessage(message, exchange.span?.()), pause);
  exchange.message = { ...message, written };
}
