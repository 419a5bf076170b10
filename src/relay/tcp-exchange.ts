import type { Duplex } from "node:stream";
import { messageOf } from "../coded-error.js";
import { Refusal } from "../http/refusal.js";
import type { Decision } from "../policy/access-request.js";
import { tcpAccessRequest } from "../policy/access-request-of.js";
import { withdraw } from "../policy/settlement.js";
import type { CallSpan, CallTracer } from "../telemetry/call-tracer.js";
import type { TraceParent } from "../telemetry/trace-context.js";
import type { RelayedBytes } from "./byte-relay.js";
import { RELAY, withdrawing, withoutCaller } from "./decide.js";
import { type Recorded, recordDecision, recordDenial } from "./decision-record.js";
import { filled, type RelayParts } from "./exchange.js";
import type { RunningService } from "./running-service.js";
import { endConnectionSpan } from "./tcp-tracing.js";

/** One connection to a tcp service on its way through a leg. */
export interface TcpExchange extends Recorded {
  readonly leg: "outbound" | "inbound";
  readonly service: RunningService;
  /** Who collects spans, as it was when the connection came. */
  readonly tracer: CallTracer | undefined;
  /** Where the caller stands in a trace. */
  parent: TraceParent | undefined;
  span: CallSpan | undefined;
}

export function newTcpExchange(
  leg: TcpExchange["leg"],
  service: RunningService,
  { tracer }: Pick<RelayParts, "tracer">,
): TcpExchange {
  return {
    ...{ leg, service, startedAt: performance.now(), request: {} },
    ...{ tracer: tracer?.(), parent: undefined, span: undefined },
    ...{ target: undefined, caller: undefined, strangerDetail: "", message: undefined, decision: undefined },
  };
}

/**
 * Asks the decision point once for the whole connection, and has its answer on record. Throws Refusal `denied` (it is on record then), or
 * `record-unwritable`. `isGone` says whether the connection was closed in between: a decision that came later is nobody's.
 */
export async function decideConnection(
  parts: RelayParts,
  exchange: TcpExchange,
  isGone: () => boolean,
): Promise<Decision> {
  const request = accessRequestOf(exchange);
  let point = parts.decisionPoint();
  let made = await point.decide(request, RELAY);
  // A narrowing does not wait for a decision that is under way.
  while (parts.decisionPoint() !== point && !isGone()) {
    withdraw(made);
    point = parts.decisionPoint();
    made = await point.decide(request, RELAY);
  }
  const decision = isGone() ? withoutCaller(made) : made;
  await recordDecision(parts, exchange, decision, request).catch(withdrawing(decision));
  if (!decision.allowed) throw new Refusal("denied", 403, decision.reason);
  return decision;
}

/** Why the connection would be denied now; undefined where it would not be. A limit is about new connections, not about those that are open. */
export async function deniedSince(parts: RelayParts, exchange: TcpExchange): Promise<string | undefined> {
  try {
    const now = await parts.decisionPoint().wouldDecide(accessRequestOf(exchange), RELAY);
    return now.allowed || now.retryAfterMs !== undefined ? undefined : now.reason;
  } catch (thrown) {
    return messageOf(thrown);
  }
}

function accessRequestOf(exchange: TcpExchange) {
  const { id, evidence, launchedBy } = filled(exchange.caller, "caller");
  const callerIs = { evidence, ...(launchedBy.length > 0 && { launched_by: launchedBy }) };
  return tcpAccessRequest({ caller: id.toString(), callerIs, service: exchange.service.id.toString() });
}

/** Puts on record that a connection goes no further, where no decision is on record yet, and shows its end. Never throws. */
export function recordRefusal(parts: RelayParts, exchange: TcpExchange, thrown: unknown): void {
  const refusal = asRefusal(thrown);
  const { code, status } = refusal;
  const error = code === "denied" ? undefined : code;
  try {
    recordDenial(parts, exchange, refusal);
  } catch {
    // It is refused whether or not that can be recorded; the log's owner reports that it cannot be written.
  }
  endConnectionSpan(exchange, { status, error });
  appendEnd(parts, exchange, { sent: 0, received: 0, error });
}

/** Puts the end of a decided connection on record and shows it. Never throws: what is over is over. */
export function recordEnd(parts: RelayParts, exchange: TcpExchange, carried: RelayedBytes): void {
  endConnectionSpan(exchange, { status: 200, carried });
  appendEnd(parts, exchange, carried);
}

function appendEnd(
  parts: RelayParts,
  exchange: TcpExchange,
  { sent, received, error }: Omit<RelayedBytes, "openMs">,
): void {
  const { decision } = exchange;
  if (decision === undefined) return;
  const durationMs = Math.round((performance.now() - exchange.startedAt) * 1000) / 1000;
  const failed = error === undefined ? {} : { error };
  if (decision.allowed) {
    try {
      parts.audit.append("call", { decision: decision.id, status: null, durationMs, sent, received, ...failed });
    } catch {
      // The log's owner reports that it cannot be written.
    }
  }
  const bytes = decision.allowed ? { sent, received } : {};
  parts.emit({ event: "call.ended", decision: decision.id, durationMs, ...bytes, ...failed });
}

function asRefusal(thrown: unknown): Refusal {
  if (thrown instanceof Refusal) return thrown;
  return new Refusal("decision-failed", 503, `refused after an error: ${messageOf(thrown)}`, { cause: thrown });
}

/** How long a refused peer may take to close its side. */
const LINGER_MS = 5_000;

/** Ends a connection without a reset: what still comes is read and thrown away. */
export function endGently(stream: Duplex): void {
  stream.on("error", () => stream.destroy());
  stream.end();
  stream.resume();
  const patience = setTimeout(() => stream.destroy(), LINGER_MS);
  patience.unref();
  stream.once("close", () => clearTimeout(patience));
}
