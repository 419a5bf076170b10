import type { AgentidEvent } from "../control-api/events.js";
import type { Explanation } from "../control-api/explanation-routes.js";
import type { Status } from "../control-api/routes.js";
import type { CallLog } from "./call-log.js";
import { emptyCallLog } from "./call-log.js";
import { type CallRate, noCalls } from "./call-rate.js";
import type { ScreenName } from "./keys.js";

export type ReloadEvent = Extract<AgentidEvent, { event: "reload" }>;
export type ProcessEvent = Extract<AgentidEvent, { event: "process" }>;
export type Service = Status["services"][number];
export type Problem = Status["problems"][number];

type Connection =
  | { readonly is: "connecting" }
  | { readonly is: "live" }
  | { readonly is: "stopping"; readonly reason: string }
  /** The last screen stays; `retryAt` in Unix milliseconds. */
  | { readonly is: "lost"; readonly reason: string; readonly retryAt: number };

/** An identity as its registration and the latest event about it say. */
export type Identity = Status["identities"][number] & {
  /** Unix milliseconds from which the expiry bar counts: the issue if it was seen, else the first sight of it. */
  readonly since: number;
};

/** Where a list stands: `key` is the selected row, `top` the index of the first visible one. */
export interface Cursor {
  readonly key?: string;
  readonly top: number;
}

export type Overlay =
  | { readonly is: "keys"; readonly scroll: number }
  | { readonly is: "detail"; readonly scroll: number }
  | { readonly is: "why"; readonly decision: string; readonly scroll: number; readonly answer?: WhyAnswer }
  /** Asks before the waiting reload with this sequence number is accepted or refused. */
  | { readonly is: "confirm"; readonly accept: boolean; readonly sequence: number; readonly scroll: number };

export type WhyAnswer = { readonly explanation: Explanation } | { readonly error: string };

export interface Size {
  readonly columns: number;
  readonly rows: number;
}

/** Everything that the screen shows, and nothing that draws it. */
export interface State {
  readonly connection: Connection;
  readonly status?: Status;
  readonly identities: readonly Identity[];
  readonly counts: { readonly calls: number; readonly denied: number };
  readonly calls: CallLog;
  readonly rate: CallRate;
  /** Newest last. */
  readonly processes: readonly ProcessEvent[];
  /** Newest last. */
  readonly reloads: readonly ReloadEvent[];
  readonly pendingReload?: ReloadEvent;
  readonly problems: readonly Problem[];
  readonly screen: ScreenName;
  readonly cursors: Readonly<Record<ScreenName, Cursor>>;
  readonly filter: { readonly text: string; readonly editing: boolean };
  readonly overlay?: Overlay;
  /** One line that goes away by itself; `until` in Unix milliseconds. */
  readonly notice?: { readonly text: string; readonly until: number };
  /** Unix milliseconds. */
  readonly now: number;
  readonly size: Size;
}

export const MAX_PROCESSES = 200;
export const MAX_RELOADS = 50;
export const MAX_PROBLEMS = 100;

const top: Cursor = { top: 0 };

export function initialState(now: number, size: Size): State {
  return {
    connection: { is: "connecting" },
    identities: [],
    counts: { calls: 0, denied: 0 },
    calls: emptyCallLog,
    rate: noCalls,
    processes: [],
    reloads: [],
    problems: [],
    screen: "calls",
    cursors: { calls: top, denials: top, identities: top, services: top, policy: top, problems: top },
    filter: { text: "", editing: false },
    now,
    size,
  };
}
