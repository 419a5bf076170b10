import type { AgentidEvent, CallDecidedEvent } from "../control-api/events.js";

type CallEnded = Extract<AgentidEvent, { event: "call.ended" }>;

/** A decided call and, once it is over, how it ended. */
export interface Call {
  readonly decided: CallDecidedEvent;
  readonly ended?: CallEnded;
  /** Lower-case text that a filter's words are looked up in. */
  readonly searchText: string;
}

/**
 * The latest calls, oldest first. While it is held, what is on screen stands still: new calls gather in `waiting`.
 */
export interface CallLog {
  readonly shown: readonly Call[];
  /** Present while held. */
  readonly waiting?: readonly Call[];
  /** Calls that came while held and are remembered no more. */
  readonly forgotten: number;
}

export const MAX_CALLS = 2_000;

export const emptyCallLog: CallLog = { shown: [], forgotten: 0 };

/** The log after a batch of events, in their order; events of other kinds are passed over. */
export function recordCalls(log: CallLog, events: readonly AgentidEvent[]): CallLog {
  if (!events.some((event) => event.event === "call" || event.event === "call.ended")) return log;
  const shown = [...log.shown];
  const waiting = log.waiting === undefined ? undefined : [...log.waiting];
  for (const event of events) {
    if (event.event === "call") (waiting ?? shown).push(newCall(event));
    else if (event.event === "call.ended" && !(waiting !== undefined && endCall(waiting, event))) endCall(shown, event);
  }
  if (waiting === undefined) return { shown: shown.slice(-MAX_CALLS), forgotten: 0 };
  const kept = waiting.slice(-MAX_CALLS);
  return { shown, waiting: kept, forgotten: log.forgotten + waiting.length - kept.length };
}

/** The log from which new calls wait outside, and the reverse. */
export function hold(log: CallLog): CallLog {
  return log.waiting === undefined ? { ...log, waiting: [] } : log;
}

export function release(log: CallLog): CallLog {
  if (log.waiting === undefined) return log;
  return { shown: [...log.shown, ...log.waiting].slice(-MAX_CALLS), forgotten: 0 };
}

/** How many calls came while held. */
export function waitingCount(log: CallLog): number {
  return (log.waiting?.length ?? 0) + log.forgotten;
}

function newCall(decided: CallDecidedEvent): Call {
  const { verdict, decision, caller, callerDetail, service, action, target, summary, rule, reason } = decided;
  const fields = [verdict, decision, caller, callerDetail, service, action, target, summary, rule, reason];
  return { decided, searchText: fields.join(" ").toLowerCase() };
}

/** Searches from the newest: calls end soon after they began. */
function endCall(calls: Call[], ended: CallEnded): boolean {
  for (let index = calls.length - 1; index >= 0; index -= 1) {
    const call = calls[index];
    if (call?.decided.decision !== ended.decision) continue;
    calls[index] = { ...call, ended };
    return true;
  }
  return false;
}
