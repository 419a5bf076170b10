import type { Clock } from "../../src/platform/clock.js";

/** A clock that stands still until a test moves it. */
export interface ManualClock extends Clock {
  /** Moves on and makes, in order, the calls that became due, those they schedule included. */
  advance(ms: number): void;
  /** Calls scheduled and neither made nor cancelled. */
  readonly pending: number;
}

export function createManualClock(start = Date.now()): ManualClock {
  let now = start;
  const scheduled = new Set<{ at: number; callback: () => void }>();

  const nextDue = (until: number) =>
    [...scheduled].filter(({ at }) => at <= until).sort((one, other) => one.at - other.at)[0];

  return {
    now: () => now,
    after(delayMs, callback) {
      const call = { at: now + delayMs, callback };
      scheduled.add(call);
      return () => scheduled.delete(call);
    },
    advance(ms) {
      const until = now + ms;
      for (let due = nextDue(until); due !== undefined; due = nextDue(until)) {
        scheduled.delete(due);
        now = Math.max(now, due.at);
        due.callback();
      }
      now = until;
    },
    get pending() {
      return scheduled.size;
    },
  };
}
