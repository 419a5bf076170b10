import { type AgentidEvent, type CallDecidedEvent, subjectOfProblem } from "../control-api/events.js";
import type { Status } from "../control-api/routes.js";
import { emptyCallLog, recordCalls } from "./call-log.js";
import { countCall, noCalls } from "./call-rate.js";
import {
  type Identity,
  MAX_PROBLEMS,
  MAX_PROCESSES,
  MAX_RELOADS,
  type ProcessEvent,
  type ReloadEvent,
  type State,
} from "./state.js";

const REFUSAL_NOTICE_MS = 6_000;

/** The state with what the daemon says of itself; its word replaces what the events since the last status added up to. */
export function applyStatus(state: State, status: Status): State {
  const known = new Map(state.identities.map((identity) => [identity.name, identity]));
  return withPendingReload(
    {
      ...state,
      status,
      identities: status.identities.map((identity) => {
        const before = known.get(identity.name);
        const since = before?.notAfter === identity.notAfter ? before?.since : undefined;
        return { ...identity, since: since ?? state.now };
      }),
      counts: status.counts,
      problems: status.problems.slice(-MAX_PROBLEMS),
    },
    status.pendingReload,
  );
}

/** The state without anything that another daemon process told: its decision ids and numbers mean nothing to this one. */
export function forgetDaemon(state: State): State {
  return withPendingReload(
    { ...state, calls: emptyCallLog, rate: noCalls, processes: [], reloads: [], problems: [], identities: [] },
    undefined,
  );
}

/** The state after a batch of events, in their order. */
export function applyEvents(state: State, events: readonly AgentidEvent[]): State {
  const recorded = { ...state, calls: recordCalls(state.calls, events) };
  return events.reduce(applyEvent, recorded);
}

function applyEvent(state: State, event: AgentidEvent): State {
  switch (event.event) {
    case "call":
      return {
        ...state,
        rate: countCall(state.rate, Date.parse(event.time)),
        counts: countsAfter(state, event),
      };
    case "call.ended":
    case "ready":
      return state;
    case "identity":
      return { ...state, identities: state.identities.map((identity) => withChange(identity, event)) };
    case "process":
      return withRefusalNotice({ ...state, processes: [...state.processes, event].slice(-MAX_PROCESSES) }, event);
    case "reload":
      return withPendingReload(
        { ...state, reloads: [...state.reloads, event].slice(-MAX_RELOADS) },
        // Also where a file does not parse: what waited is no longer what the files say, and nobody can accept it.
        event.outcome === "waiting" ? event : undefined,
      );
    case "problem":
      return { ...state, problems: problemsAfter(state, event) };
    case "stopping":
      return { ...state, connection: { is: "stopping", reason: event.reason } };
  }
}

/** A process that got nothing never shows up as a caller, so whatever screen is open says it, if it is news. */
function withRefusalNotice(state: State, event: ProcessEvent): State {
  const isRefusal = event.change === "refused" || event.change === "launch-refused";
  if (!isRefusal || Date.parse(event.time) < state.now - REFUSAL_NOTICE_MS) return state;
  const text = `${event.change}: pid ${event.pid}, uid ${event.uid}, ${event.detail}`;
  return { ...state, notice: { text, until: state.now + REFUSAL_NOTICE_MS } };
}

/** Events from before the status are in its counts already: the daemon repeats what it still holds. */
function countsAfter(state: State, event: CallDecidedEvent): State["counts"] {
  if (event.sequence < (state.status?.nextEvent ?? 0)) return state.counts;
  const { calls, denied } = state.counts;
  return { calls: calls + 1, denied: event.verdict === "DENY" ? denied + 1 : denied };
}

function withChange(identity: Identity, event: Extract<AgentidEvent, { event: "identity" }>): Identity {
  if (identity.name !== event.name) return identity;
  const { notAfter: _notAfter, rotateAt: _rotateAt, ...rest } = identity;
  if (event.change === "removed" || event.change === "revoked") return { ...rest, pids: [] };
  if (event.change === "restored") return identity;
  return {
    ...rest,
    since: Date.parse(event.time),
    ...(event.notAfter === undefined ? {} : { notAfter: event.notAfter }),
    ...(event.rotateAt === undefined ? {} : { rotateAt: event.rotateAt }),
  };
}

/** A question about a reload closes when another one waits: nobody may accept what they have not read. */
function withPendingReload(state: State, pending: ReloadEvent | undefined): State {
  const { pendingReload: _before, ...rest } = state;
  const next: State = pending === undefined ? rest : { ...rest, pendingReload: pending };
  if (next.overlay?.is !== "confirm" || next.overlay.sequence === pending?.sequence) return next;
  const { overlay: _closed, ...open } = next;
  const text =
    pending === undefined ? "no reload is waiting any more" : "the changes are other ones now: read them again";
  return { ...open, notice: { text, until: state.now + 6_000 } };
}

function problemsAfter(state: State, event: Extract<AgentidEvent, { event: "problem" }>): State["problems"] {
  const { severity, code, message } = event;
  const subject = subjectOfProblem(event);
  const others = state.problems.filter((problem) => subjectOfProblem(problem) !== subject);
  return event.resolved === true ? others : [...others, { severity, code, message }].slice(-MAX_PROBLEMS);
}
