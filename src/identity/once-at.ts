import type { Clock } from "../platform/clock.js";

/**
 * Timers count running time: while a laptop sleeps they stand still, and beyond 2^31 ms they fire at once.
 * So none waits longer than this before it looks at the wall clock again.
 */
const LONGEST_WAIT_MS = 5_000;

/** Calls `callback` once when the wall clock reaches `at` (ms), at most 5 s late after a suspend. The returned function cancels. */
export function onceAt(clock: Clock, at: number, callback: () => void): () => void {
  let cancel = () => {};
  const wait = () => {
    const left = at - clock.now();
    cancel = left <= 0 ? clock.after(0, callback) : clock.after(Math.min(left, LONGEST_WAIT_MS), () => check());
  };
  const check = () => (clock.now() >= at ? callback() : wait());
  wait();
  return () => cancel();
}
