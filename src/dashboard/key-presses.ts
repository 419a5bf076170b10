import { hold, release } from "./call-log.js";
import { type Action, actionFor } from "./keys.js";
import type { Update } from "./model.js";
import { moveCursor, withCursor } from "./navigation.js";
import { currentRow, type Row } from "./rows-of-screen.js";
import type { Overlay, State } from "./state.js";

/** The state after one key press. While the filter is edited, keys type. */
export function pressKey(state: State, key: string, text: string): Update {
  if (state.filter.editing && key !== "ctrl+c") return only(editFilter(state, key, text));
  const action = actionFor(key);
  if (action === undefined) return only(state);
  return state.overlay === undefined ? act(state, action) : actInOverlay(state, state.overlay, action);
}

function act(state: State, action: Action): Update {
  switch (action.do) {
    case "screen":
      return only({ ...state, screen: action.screen });
    case "move":
      return only(moveCursor(isCallList(state) ? { ...state, calls: hold(state.calls) } : state, action));
    case "filter":
      return only({
        ...(isCallList(state) ? state : { ...state, screen: "calls" }),
        filter: { ...state.filter, editing: true },
      });
    case "follow":
      return only(follow(state));
    case "pause":
      return only(state.calls.waiting === undefined ? { ...state, calls: hold(state.calls) } : follow(state));
    case "detail": {
      const row = currentRow(state);
      if (row === undefined) return only(state);
      return only(withOverlay(selectRow(state, row), { is: "detail", scroll: 0 }));
    }
    case "why":
      return askWhy(state);
    case "copy":
      return copyDecision(state);
    case "accept":
    case "refuse":
      return only(confirmReload(state, action.do === "accept"));
    case "keys":
      return only(withOverlay(state, { is: "keys", scroll: 0 }));
    case "back":
      return only(state.filter.text === "" ? follow(state) : { ...state, filter: { text: "", editing: false } });
    case "yes":
      return only(state);
    case "suspend":
    case "quit":
      return { state, effects: [{ do: action.do }] };
  }
}

function actInOverlay(state: State, overlay: Overlay, action: Action): Update {
  switch (action.do) {
    case "quit":
    case "suspend":
      return { state, effects: [{ do: action.do }] };
    case "move": {
      const step = { line: 1, page: 10, all: Number.MAX_SAFE_INTEGER }[action.by] * action.direction;
      // The view knows how long the text is; it shows the last page for a number that is too large.
      const scroll = Math.min(100_000, Math.max(0, overlay.scroll + step));
      return only(withOverlay(state, { ...overlay, scroll }));
    }
    case "yes":
      if (overlay.is !== "confirm") return only(state);
      return {
        state: withoutOverlay(state),
        effects: [{ do: "answerReload", accept: overlay.accept, sequence: overlay.sequence }],
      };
    case "why":
      return overlay.is === "detail" ? askWhy(withoutOverlay(state)) : only(state);
    case "copy":
      return copyDecision(state);
    case "screen":
      return act(withoutOverlay(state), action);
    case "keys":
      return only(overlay.is === "keys" ? withoutOverlay(state) : state);
    case "back":
    case "detail":
      return only(withoutOverlay(state));
    default:
      return only(state);
  }
}

function editFilter(state: State, key: string, text: string): State {
  const { filter } = state;
  switch (key) {
    case "enter":
      return { ...state, filter: { ...filter, editing: false } };
    case "esc":
      return { ...state, filter: { text: "", editing: false } };
    case "backspace":
      return { ...state, filter: { ...filter, text: filter.text.slice(0, -1) } };
    default:
      return { ...state, filter: { ...filter, text: filter.text + text } };
  }
}

function follow(state: State): State {
  const atTop = { top: 0 };
  return { ...state, calls: release(state.calls), cursors: { ...state.cursors, calls: atTop, denials: atTop } };
}

function askWhy(state: State): Update {
  const row = currentRow(state);
  if (row?.is !== "call") return only(notice(state, "select a call first: `w` explains a decision"));
  const { decision } = row.call.decided;
  return {
    state: withOverlay(selectRow(state, row), { is: "why", decision, scroll: 0 }),
    effects: [{ do: "explain", decision }],
  };
}

/** The row that is read stays where it is, whatever comes meanwhile. */
function selectRow(state: State, row: Row): State {
  const held = row.is === "call" ? { ...state, calls: hold(state.calls) } : state;
  return withCursor(held, { ...state.cursors[state.screen], key: row.key });
}

function copyDecision(state: State): Update {
  const decision = state.overlay?.is === "why" ? state.overlay.decision : currentDecision(state);
  if (decision === undefined) return only(notice(state, "select a call first: `c` copies its decision id"));
  return {
    state: notice(state, `decision ${decision} is in the clipboard`),
    effects: [{ do: "copy", text: decision }],
  };
}

function currentDecision(state: State): string | undefined {
  const row = currentRow(state);
  return row?.is === "call" ? row.call.decided.decision : undefined;
}

function confirmReload(state: State, accept: boolean): State {
  const pending = state.pendingReload;
  if (pending === undefined) return notice(state, "no reload is waiting");
  return withOverlay(state, { is: "confirm", accept, sequence: pending.sequence, scroll: 0 });
}

function isCallList(state: State): boolean {
  return state.screen === "calls" || state.screen === "denials";
}

function withOverlay(state: State, overlay: Overlay): State {
  return { ...state, overlay };
}

function withoutOverlay(state: State): State {
  const { overlay: _closed, ...rest } = state;
  return rest;
}

function notice(state: State, text: string): State {
  return { ...state, notice: { text, until: state.now + 4_000 } };
}

function only(state: State): Update {
  return { state, effects: [] };
}
