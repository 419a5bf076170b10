import type { AgentidEvent } from "../control-api/events.js";
import type { Status } from "../control-api/routes.js";
import { displayable, displayableLines } from "./displayable.js";
import { pressKey } from "./key-presses.js";
import { keepInView } from "./navigation.js";
import type { Size, State, WhyAnswer } from "./state.js";
import { applyEvents, applyStatus, forgetDaemon } from "./trust-domain.js";

/** What the core asks of the outside. */
export type Effect =
  | { readonly do: "quit" }
  | { readonly do: "suspend" }
  | { readonly do: "explain"; readonly decision: string }
  | { readonly do: "copy"; readonly text: string }
  | { readonly do: "answerReload"; readonly accept: boolean; readonly sequence: number };

/** What happened outside. */
export type Message =
  | { readonly is: "connected"; readonly status: Status; readonly restarted: boolean }
  | { readonly is: "lost"; readonly reason: string; readonly retryInMs: number }
  | { readonly is: "status"; readonly status: Status }
  | { readonly is: "events"; readonly events: readonly AgentidEvent[] }
  | { readonly is: "explained"; readonly decision: string; readonly answer: WhyAnswer }
  /** `key` as `keyName` names it, `text` what it types. */
  | { readonly is: "key"; readonly key: string; readonly text: string }
  | { readonly is: "pasted"; readonly text: string }
  | { readonly is: "notice"; readonly text: string }
  | { readonly is: "resized"; readonly size: Size }
  | { readonly is: "tick" };

export interface Update {
  readonly state: State;
  readonly effects: readonly Effect[];
}

const NOTICE_MS = 4_000;

/** The state after a message at `now`, and what is to be done about it. Pure: nothing here draws, waits or asks. */
export function update(before: State, message: Message, now: number): Update {
  const state = dropOldNotice({ ...before, now });
  const next = transition(state, message);
  return { state: keepInView(next.state), effects: next.effects };
}

function transition(state: State, message: Message): Update {
  switch (message.is) {
    case "connected":
      return only(
        applyStatus(
          { ...(message.restarted ? forgetDaemon(state) : state), connection: { is: "live" } },
          displayable(message.status),
        ),
      );
    case "lost": {
      const { reason } = displayable({ reason: message.reason });
      return only({ ...state, connection: { is: "lost", reason, retryAt: state.now + message.retryInMs } });
    }
    case "status":
      return only(applyStatus(state, displayable(message.status)));
    case "events":
      return only(applyEvents(state, message.events.map(displayable)));
    case "explained":
      return only(explained(state, message.decision, message.answer));
    case "key":
      return pressKey(state, message.key, message.text);
    case "pasted":
      return only(state.filter.editing ? withFilterText(state, displayable(message.text)) : state);
    case "notice":
      return only(withNotice(state, displayable(message.text)));
    case "resized":
      return only({ ...state, size: message.size });
    case "tick":
      return only(state);
  }
}

/** True while something on the screen changes with the seconds: clock, rate, expiry. */
export function dependsOnClock(state: State): boolean {
  return state.overlay?.is !== "keys";
}

function explained(state: State, decision: string, answer: WhyAnswer): State {
  if (state.overlay?.is !== "why" || state.overlay.decision !== decision) return state;
  return { ...state, overlay: { ...state.overlay, answer: displayableAnswer(answer) } };
}

/** A suggested rule is YAML: its line breaks stay, everything else that is no text goes. */
function displayableAnswer(answer: WhyAnswer): WhyAnswer {
  if ("error" in answer) return displayable(answer);
  const { suggestion, ...rest } = answer.explanation;
  const lines = suggestion === undefined ? {} : { suggestion: displayableLines(suggestion).join("\n") };
  return { explanation: { ...displayable(rest), ...lines } };
}

function withFilterText(state: State, text: string): State {
  return { ...state, filter: { ...state.filter, text: state.filter.text + text } };
}

function withNotice(state: State, text: string): State {
  return { ...state, notice: { text, until: state.now + NOTICE_MS } };
}

function dropOldNotice(state: State): State {
  if (state.notice === undefined || state.now < state.notice.until) return state;
  const { notice: _over, ...rest } = state;
  return rest;
}

function only(state: State): Update {
  return { state, effects: [] };
}
