import type { Size, State } from "./state.js";

const MIN_COLUMNS = 80;
const MIN_ROWS = 24;
/** Top and bottom border. */
const BORDER = 2;

/** How the rows and columns of the terminal are shared out; all in character cells. */
export interface Layout {
  readonly columns: number;
  /** Lines between the header and the footer that say something urgent. */
  readonly bannerRows: number;
  /** Height of the frame on top, with its border. */
  readonly listHeight: number;
  /** Rows of the list inside that frame. */
  readonly listRows: number;
  /** Height of the frames below, with their border. */
  readonly bottomHeight: number;
  /** Height of an overlay, which takes the place of both. */
  readonly bodyHeight: number;
  /** Width of the identities beside the detail pane. */
  readonly leftColumns: number;
}

export function layoutOf(state: State): Layout {
  const { columns, rows } = state.size;
  const bannerRows = bannerCount(state);
  const bodyHeight = rows - 2 - bannerRows;
  const isCallList = state.screen === "calls" || state.screen === "denials";
  const bottomHeight = isCallList
    ? Math.min(14, Math.max(7, Math.round(bodyHeight * 0.32)))
    : Math.max(9, Math.round(bodyHeight * 0.5));
  const listHeight = bodyHeight - bottomHeight;
  return {
    columns,
    bannerRows,
    listHeight,
    listRows: listHeight - BORDER,
    bottomHeight,
    bodyHeight,
    leftColumns: Math.min(64, Math.floor(columns * 0.46)),
  };
}

/** One line that says how much room is missing, `undefined` where there is enough. */
export function missingRoom(size: Size): string | undefined {
  const columns = MIN_COLUMNS - size.columns;
  const rows = MIN_ROWS - size.rows;
  if (columns <= 0 && rows <= 0) return undefined;
  const missing = [
    ...(columns > 0 ? [`${columns} column${columns === 1 ? "" : "s"}`] : []),
    ...(rows > 0 ? [`${rows} row${rows === 1 ? "" : "s"}`] : []),
  ];
  return `agentid needs ${missing.join(" and ")} more`;
}

/** The urgent lines: connection, reload, problems. Kept here because each takes a row from the lists. */
function bannerCount(state: State): number {
  const connection = state.connection.is === "lost" || state.connection.is === "stopping" ? 1 : 0;
  const reload = state.pendingReload !== undefined || state.reloads.at(-1)?.outcome === "failed" ? 1 : 0;
  const problems = state.problems.length > 0 && state.screen !== "problems" ? 1 : 0;
  return connection + reload + problems;
}
