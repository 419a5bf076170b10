import { codeOf, messageOf } from "../coded-error.js";
import { onceAt } from "../identity/once-at.js";
import type { Clock } from "../platform/clock.js";

/**
 * When a bundle is fetched, as a state machine:
 *
 * ```
 *   waiting ── due, or refresh by command ──▶ fetching ── accepted or failed ──▶ waiting (one interval)
 *      └──────────────── close ──────────────────┴──────────────────────────────▶ closed
 * ```
 *
 * Federation §6.2: after a failure it is tried again at the next interval.
 */
export interface BundlePoll {
  readonly state: "waiting" | "fetching" | "closed";
  /** When the next fetch begins, or the running one began. */
  readonly nextAt: Date;
  readonly lastSuccess: Date | undefined;
  /** Why the last fetch failed. */
  readonly failure: Failure | undefined;
  /** Fetches now, or joins the fetch that runs. Never rejects. */
  refresh(): Promise<PollResult>;
  close(): void;
}

export interface Failure {
  readonly code: string;
  readonly message: string;
}

export type PollResult = { readonly outcome: "changed" | "unchanged" } | ({ readonly outcome: "failed" } & Failure);

export interface BundlePollOptions {
  readonly clock: Clock;
  /** Fetches, verifies and keeps. */
  readonly fetch: (signal: AbortSignal) => Promise<"changed" | "unchanged">;
  /** The hint of the bundle held now. */
  readonly refreshHintSeconds: () => number | undefined;
  /** Called after each fetch that was not given up. */
  readonly onResult: (result: PollResult, before: Failure | undefined) => void;
}

const STANDARD_SECONDS = 300;
const SHORTEST_SECONDS = 10;
const LONGEST_SECONDS = 86_400;

/** The time between two fetches. Trust Domain and Bundle §4.1.2; bounded, so that no publisher keeps us busy or makes us blind. */
export function refreshSeconds(hint: number | undefined): number {
  return Math.min(LONGEST_SECONDS, Math.max(SHORTEST_SECONDS, hint ?? STANDARD_SECONDS));
}

/** Fetches at once, then at every interval until closed. */
export function startBundlePoll(options: BundlePollOptions): BundlePoll {
  const { clock } = options;
  const giveUp = new AbortController();
  let running: Promise<PollResult> | undefined;
  let lastSuccess: Date | undefined;
  let failure: Failure | undefined;
  let nextAt = clock.now();
  let cancel = () => {};

  function wait(): void {
    if (giveUp.signal.aborted) return;
    nextAt = clock.now() + refreshSeconds(options.refreshHintSeconds()) * 1000;
    cancel = onceAt(clock, nextAt, () => void refresh());
  }

  async function fetchOnce(): Promise<PollResult> {
    let result: PollResult;
    try {
      result = { outcome: await options.fetch(giveUp.signal) };
    } catch (thrown) {
      result = { outcome: "failed", code: codeOf(thrown), message: messageOf(thrown) };
    }
    running = undefined;
    if (giveUp.signal.aborted) return result;
    const before = failure;
    failure = result.outcome === "failed" ? { code: result.code, message: result.message } : undefined;
    if (failure === undefined) lastSuccess = new Date(clock.now());
    wait();
    options.onResult(result, before);
    return result;
  }

  function refresh(): Promise<PollResult> {
    if (running !== undefined) return running;
    cancel();
    nextAt = clock.now();
    running = fetchOnce();
    return running;
  }

  void refresh();
  return {
    get state() {
      if (giveUp.signal.aborted) return "closed";
      return running === undefined ? "waiting" : "fetching";
    },
    get nextAt() {
      return new Date(nextAt);
    },
    get lastSuccess() {
      return lastSuccess;
    },
    get failure() {
      return failure;
    },
    refresh,
    close() {
      giveUp.abort();
      cancel();
    },
  };
}
