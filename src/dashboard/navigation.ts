import { layoutOf } from "./layout.js";
import { rowsOf } from "./rows-of-screen.js";
import type { Cursor, State } from "./state.js";

type Step = { readonly by: "line" | "page" | "all"; readonly direction: -1 | 1 };

/** The state with another row selected; the first step from no selection takes the topmost visible row. */
export function moveCursor(state: State, step: Step): State {
  const rows = rowsOf(state);
  if (rows.length === 0) return state;
  const cursor = state.cursors[state.screen];
  const current = rows.findIndex((row) => row.key === cursor.key);
  const index = current === -1 && step.by === "line" ? cursor.top : current + distance(state, step, rows.length);
  const row = rows[Math.min(rows.length - 1, Math.max(0, index))];
  return row === undefined ? state : withCursor(state, { ...cursor, key: row.key });
}

/** The state with the selected row, if it still exists, inside the visible part of its list. */
export function keepInView(state: State): State {
  const rows = rowsOf(state);
  const cursor = state.cursors[state.screen];
  const page = Math.max(1, layoutOf(state).listRows);
  const lastTop = Math.max(0, rows.length - page);
  const index = cursor.key === undefined ? -1 : rows.findIndex((row) => row.key === cursor.key);
  const wanted = index === -1 ? cursor.top : Math.min(index, Math.max(index - page + 1, cursor.top));
  const top = Math.min(lastTop, Math.max(0, wanted));
  return top === cursor.top ? state : withCursor(state, { ...cursor, top });
}

export function withCursor(state: State, cursor: Cursor): State {
  return { ...state, cursors: { ...state.cursors, [state.screen]: cursor } };
}

function distance(state: State, step: Step, length: number): number {
  const rows = { line: 1, page: Math.max(1, layoutOf(state).listRows - 1), all: length }[step.by];
  return rows * step.direction;
}
