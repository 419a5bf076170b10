import type { Clock } from "./clock.js";

/** How often the two clocks are compared. One timer for the whole process: while the machine sleeps it stands still, and it fires once after. */
const TICK_MS = 1_000;
/** A difference beyond this is a jump: NTP slews by less than 1 ms in a second, and steps only what is further off than 128 ms. */
const JUMP_MS = 500;

export interface ClockWatchOptions {
  readonly clock: Clock;
  /** Milliseconds of running time, which nobody sets: `performance.now`. */
  readonly monotonic?: () => number;
  /** The wall clock has moved by this much more (or, negative, less) than time has passed: the machine slept, or the clock was set. */
  readonly onJump: (byMs: number) => void;
  /** Called at each look, after `onJump`. */
  readonly onTick?: () => void;
}

/**
 * Compares wall clock and running time once a second, so that timers which were set under another time do not decide when something is renewed:
 * after a suspend of any length, or a clock that was set forward or back, `onJump` is called within a second of running time. The returned function ends it.
 */
export function watchClock({
  clock,
  monotonic = () => performance.now(),
  onJump,
  onTick,
}: ClockWatchOptions): () => void {
  let offset = clock.now() - monotonic();
  let cancel = () => {};
  const look = () => {
    cancel = clock.after(TICK_MS, look);
    const before = offset;
    offset = clock.now() - monotonic();
    if (Math.abs(offset - before) > JUMP_MS) onJump(offset - before);
    onTick?.();
  };
  cancel = clock.after(TICK_MS, look);
  return () => cancel();
}
