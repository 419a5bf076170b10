import type { KeptAnswer } from "../durable/call-table.js";
import { recordOutcome, showEnd } from "./decision-record.js";
import { withId } from "./durable-mcp.js";
import type { Exchange, RelayParts, StepResult } from "./exchange.js";
import { DECISION_HEADER, forwardableResponseHeaders } from "./headers.js";

/** As Stripe calls it. */
const MARKER = "Idempotency-Replayed";

/**
 * What a kept answer does not say again: what is secret and was for the one who got it first, what is said anew, and what speaks of one connection.
 */
const NOT_KEPT = new Set([
  "authentication-info",
  "clear-site-data",
  "content-length",
  "set-cookie",
  "set-cookie2",
  "www-authenticate",
  MARKER.toLowerCase(),
  DECISION_HEADER.toLowerCase(),
]);

export function keptHeaders(raw: readonly string[]): string[] {
  return forwardableResponseHeaders(raw, NOT_KEPT);
}

/** Gives the answer to an earlier request with the same key again; it is on record that it was. */
export async function replay(parts: RelayParts, exchange: Exchange, answer: KeptAnswer): Promise<StepResult> {
  const { response, message, decision } = exchange;
  const { status, headers } = answer;
  const body = message?.kind === "request" ? withId(answer, message.id) : Buffer.from(answer.body);
  await recordOutcome(parts, exchange, { status, replayed: true });
  const length = status === 204 || status === 304 ? [] : ["Content-Length", String(body.length)];
  const decided = decision === undefined ? [] : [DECISION_HEADER, decision.id];
  response.writeHead(status, [...headers, ...length, MARKER, "true", ...decided]);
  response.end(body);
  showEnd(parts, exchange, { status, replayed: true });
  return "answered";
}
