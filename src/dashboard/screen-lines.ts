import { waitingCount } from "./call-log.js";
import { rateText, sparkline } from "./call-rate.js";
import { callColumns, callRow } from "./call-row.js";
import { KEYS, type ScreenName } from "./keys.js";
import { type Row, rowsOf } from "./rows-of-screen.js";
import type { Identity, Problem, ReloadEvent, Service, State } from "./state.js";
import { filled, line, type Span, type TextLine, widthOf } from "./text-line.js";
import { bar, clockSeconds, clockTime, counted, expiryOf, shortCaller, timeLeft } from "./words.js";

/** The top line: which trust domain, how it is, how much of what, what time. */
export function headerLine(state: State, width: number): TextLine {
  const { status } = state;
  const clock = `${clockSeconds(state.now)} `;
  const left: Span[] = [{ text: ` agentid  ${status?.trustDomain ?? ""} `, tone: "strong" }, connectionWord(state)];
  const room = width - clock.length - left.reduce((sum, span) => sum + widthOf(span.text), 0);
  const counts = [
    counted(state.identities.length, "identity"),
    `policy ${status?.policy.digest.slice(0, 4) ?? "?"} (${counted(status?.policy.rules ?? 0, "rule")})`,
    counted(status?.services.length ?? 0, "service"),
  ];
  let middle = " ";
  for (const count of counts) if (widthOf(middle) + count.length + 2 <= room) middle += `  ${count}`;
  return line(...left, filled(middle, Math.max(0, room)), clock);
}

function connectionWord({ connection }: State): Span {
  switch (connection.is) {
    case "live":
      return { text: "● live", tone: "allow" };
    case "connecting":
      return { text: "○ connecting", tone: "wait" };
    case "stopping":
      return { text: "○ stopping", tone: "wait" };
    case "lost":
      return { text: "○ gone", tone: "deny" };
  }
}

/** Lines between header and body for what must not be missed. `layoutOf` counts the same conditions. */
export function bannerLines(state: State): TextLine[] {
  const { connection, pendingReload, problems } = state;
  const lines: TextLine[] = [];
  if (connection.is === "lost") {
    const wait = timeLeft(connection.retryAt - state.now);
    lines.push(line({ text: ` daemon is gone, trying again in ${wait}: ${connection.reason}`, tone: "deny" }));
  }
  if (connection.is === "stopping")
    lines.push(line({ text: ` daemon is stopping: ${connection.reason}`, tone: "wait" }));
  if (pendingReload !== undefined) {
    const changes = counted(pendingReload.changes.length, "change");
    const what = `${pendingReload.widened ? "WIDENED: " : ""}${changes} of the configuration ${pendingReload.changes.length === 1 ? "waits" : "wait"}`;
    lines.push(line({ text: ` ${what}   a accept   r refuse   5 see them`, tone: "wait" }));
  } else if (state.reloads.at(-1)?.outcome === "failed") {
    const reason = state.reloads.at(-1)?.error ?? "unknown reason";
    lines.push(line({ text: ` reload FAILED, the last good state stays: ${reason}`, tone: "deny" }));
  }
  const worst = problems.findLast((problem) => problem.severity === "error") ?? problems.at(-1);
  if (worst !== undefined && state.screen !== "problems") {
    const more = problems.length > 1 ? ` (6: all ${problems.length})` : "";
    lines.push(
      line({
        text: ` ${worst.severity} ${worst.code}: ${worst.message}${more}`,
        tone: worst.severity === "error" ? "deny" : "wait",
      }),
    );
  }
  return lines;
}

/** The bottom line: what is typed, what was said, or the keys. */
export function footerLine(state: State, width: number): TextLine {
  if (state.filter.editing)
    return line({ text: ` filter: ${state.filter.text}█`, tone: "strong" }, "   Enter keeps it, Esc clears it");
  if (state.notice !== undefined) return line({ text: ` ${state.notice.text}`, tone: "strong" });
  const named = KEYS.filter(({ footer }) => footer !== undefined).map((binding) => ({
    ...binding,
    text: ` ${binding.shown.split(" ")[0]} ${binding.footer}`,
  }));
  let room = width;
  for (const { text, footerAlways } of named) if (footerAlways === true) room -= text.length;
  const spans: Span[] = [];
  for (const { text, footerAlways, action } of named) {
    if (footerAlways !== true) room -= text.length;
    if (footerAlways !== true && room < 0) continue;
    const here = action.do === "screen" && action.screen === state.screen;
    spans.push({ text, tone: here ? "strong" : "dim" });
  }
  return line(...spans);
}

const TITLES: Readonly<Record<ScreenName, string>> = {
  calls: "Calls",
  denials: "Denials",
  identities: "Identities",
  services: "Services",
  policy: "Policy",
  problems: "Problems",
};

/** The list of the current screen: its titles and its visible rows. */
export function listFrame(
  state: State,
  size: { readonly width: number; readonly rows: number },
): { title: string; note: string; lines: TextLine[] } {
  const rows = rowsOf(state);
  const cursor = state.cursors[state.screen];
  const visible = rows.slice(cursor.top, cursor.top + size.rows);
  const lines =
    rows.length === 0
      ? [line({ text: ` ${emptyText(state)}`, tone: "dim" })]
      : rowLines(visible, cursor.key, state, size.width);
  return { title: `${TITLES[state.screen]}${filterWords(state)}`, note: noteOf(state, rows.length), lines };
}

function filterWords({ filter, screen }: State): string {
  return filter.text === "" || (screen !== "calls" && screen !== "denials") ? "" : ` matching ${filter.text}`;
}

function noteOf(state: State, count: number): string {
  switch (state.screen) {
    case "calls":
    case "denials": {
      const held = state.calls.waiting === undefined ? "" : `PAUSED +${waitingCount(state.calls)} new  `;
      return `${held}${rateText(state.rate, state.now)} ${sparkline(state.rate, state.now)} ${state.counts.denied} denied`;
    }
    case "policy": {
      const policy = state.status?.policy;
      return policy === undefined
        ? ""
        : `${policy.digest}  ${counted(policy.rules, "rule")} in ${counted(policy.files, "file")}`;
    }
    default:
      return String(count);
  }
}

function emptyText(state: State): string {
  if (state.status === undefined) return "waiting for the daemon";
  switch (state.screen) {
    case "calls":
      return state.filter.text === ""
        ? "no calls yet; start an agent with: agentid run NAME -- COMMAND"
        : "no call matches the filter";
    case "denials":
      return state.filter.text === "" ? "nothing was denied" : "no denial matches the filter";
    case "identities":
      return "no identities are registered";
    case "services":
      return "no services are registered";
    case "policy":
      return "the configuration has not changed since the start";
    case "problems":
      return "no problems";
  }
}

export function identityNames(state: State): ReadonlySet<string> {
  return new Set(state.identities.map((identity) => identity.name));
}

function rowLines(rows: readonly Row[], selected: string | undefined, state: State, width: number): TextLine[] {
  const names = identityNames(state);
  const columns = callColumns(
    rows.flatMap((row) => (row.is === "call" ? [row.call] : [])),
    names,
  );
  return rows.map((row) => {
    const isSelected = row.key === selected;
    if (row.is === "call") return callRow(row.call, { columns, names, width, selected: isSelected });
    return { ...line(isSelected ? "▸" : " ", ...rowSpans(row, state, width - 1)), selected: isSelected };
  });
}

function rowSpans(row: Exclude<Row, { is: "call" }>, state: State, width: number): Span[] {
  switch (row.is) {
    case "identity":
      return identitySpans(row.identity, state.now, identityNames(state), width);
    case "service":
      return serviceSpans(row.service);
    case "reload":
      return reloadSpans(row.reload);
    case "problem":
      return problemSpans(row.problem);
  }
}

/** `agents/billing     ███████░░░  6:12  ↻ 3:10   pid 5120` */
export function identitySpans(identity: Identity, now: number, names: ReadonlySet<string>, width: number): Span[] {
  const { left, share, next } = expiryOf(identity, now);
  const cells = width < 40 ? 5 : 10;
  const held =
    identity.pids.length > 1 ? `${identity.pids.length} pids` : identity.pids.map((pid) => `pid ${pid}`).join("");
  const room = width - (cells + 1 + 7 + 1 + 7 + 1);
  // The name matters more than the process: it gets the room first.
  const nameWidth = Math.max(8, Math.min(28, room - 1, room > 30 ? room - 12 : room));
  const name = widthOf(identity.name) <= nameWidth ? identity.name : shortCaller(identity.name, names);
  const urgent = next === "↻ now" || left === "EXPIRED";
  return [
    { text: `${filled(name, nameWidth)} ` },
    { text: `${bar(share, cells)} `, tone: left === "EXPIRED" ? "deny" : "allow" },
    { text: filled(left, 7, "right"), tone: urgent ? "wait" : "plain" },
    { text: ` ${filled(next, 7)} `, tone: urgent ? "wait" : "dim" },
    { text: held, tone: "dim" },
  ];
}

function serviceSpans(service: Service): Span[] {
  return [
    { text: `${filled(service.name, 18)} ${filled(service.protocol, 5)} ` },
    {
      text: `${filled(service.state, 9)} `,
      tone: service.state === "running" ? "allow" : service.state === "failed" ? "deny" : "wait",
    },
    ...(service.reachableAround ? [{ text: "reachable around  ", tone: "wait" } as const] : []),
    { text: `${service.url}  → ${service.upstream}` },
  ];
}

function reloadSpans(reload: ReloadEvent): Span[] {
  const outcome = reload.widened ? `${reload.outcome} WIDENED` : reload.outcome;
  return [
    { text: `${clockTime(reload.time)}  `, tone: "dim" },
    {
      text: filled(outcome, 17),
      tone: reload.outcome === "failed" ? "deny" : reload.outcome === "waiting" ? "wait" : "plain",
    },
    { text: `  ${counted(reload.changes.length, "change")}  ${reload.error ?? reload.changes.join("; ")}` },
  ];
}

function problemSpans(problem: Problem): Span[] {
  return [
    { text: `${filled(problem.severity, 7)}  `, tone: problem.severity === "error" ? "deny" : "wait" },
    { text: `${problem.code}: ${problem.message}` },
  ];
}
