import { compileCallFilter } from "./call-filter.js";
import type { Call } from "./call-log.js";
import type { Identity, Problem, ReloadEvent, Service, State } from "./state.js";

/** One selectable row, named by a key that stays the same while rows come and go. */
export type Row =
  | { readonly is: "call"; readonly key: string; readonly call: Call }
  | { readonly is: "identity"; readonly key: string; readonly identity: Identity }
  | { readonly is: "service"; readonly key: string; readonly service: Service }
  | { readonly is: "reload"; readonly key: string; readonly reload: ReloadEvent }
  | { readonly is: "problem"; readonly key: string; readonly problem: Problem };

/** The rows of the current screen from the top: calls, denials and reloads newest first. */
export function rowsOf(state: State): readonly Row[] {
  switch (state.screen) {
    case "calls":
    case "denials":
      return callRows(state);
    case "identities":
      return state.identities.map((identity) => ({ is: "identity", key: identity.name, identity }));
    case "services":
      return (state.status?.services ?? []).map((service) => ({ is: "service", key: service.name, service }));
    case "policy":
      return state.reloads.map((reload): Row => ({ is: "reload", key: String(reload.sequence), reload })).reverse();
    case "problems":
      return state.problems.map((problem) => ({
        is: "problem",
        key: `${problem.code} ${problem.message}`,
        problem,
      }));
  }
}

/** The selected row; without a selection the one that matters most: the newest denial, else the first row. */
export function currentRow(state: State): Row | undefined {
  const rows = rowsOf(state);
  const { key } = state.cursors[state.screen];
  const selected = key === undefined ? undefined : rows.find((row) => row.key === key);
  if (selected !== undefined) return selected;
  return rows.find((row) => row.is === "call" && row.call.decided.verdict === "DENY") ?? rows[0];
}

interface FilteredCalls {
  readonly filter: string;
  readonly rows: readonly Row[];
}
/** Remembers the last answer for a list of calls, which is asked for several times a frame. */
const filtered = new WeakMap<readonly Call[], FilteredCalls>();

function callRows(state: State): readonly Row[] {
  const { shown } = state.calls;
  const filter = state.screen === "denials" ? `verdict:deny ${state.filter.text}` : state.filter.text;
  const remembered = filtered.get(shown);
  if (remembered?.filter === filter) return remembered.rows;
  const matches = compileCallFilter(filter);
  const rows: Row[] = [];
  for (let index = shown.length - 1; index >= 0; index -= 1) {
    const call = shown[index];
    if (call !== undefined && matches(call)) rows.push({ is: "call", key: call.decided.decision, call });
  }
  filtered.set(shown, { filter, rows });
  return rows;
}
