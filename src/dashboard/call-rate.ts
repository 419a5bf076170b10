/** Calls in each of the latest seconds, for the rate and its sparkline. Seconds are whole Unix seconds. */
export interface CallRate {
  /** The newest second with a call. */
  readonly second: number;
  /** Calls a second, oldest first; the last one belongs to `second`. */
  readonly counts: readonly number[];
}

const SECONDS = 10;
const BARS = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"] as const;

export const noCalls: CallRate = { second: 0, counts: new Array<number>(SECONDS).fill(0) };

/** The rate after one more call at `timeMs`. */
export function countCall(rate: CallRate, timeMs: number): CallRate {
  const second = Math.floor(timeMs / 1000);
  const moved = second > rate.second ? { second, counts: countsUpTo(rate, second) } : rate;
  const index = moved.counts.length - 1 - (moved.second - second);
  if (index < 0) return moved;
  const counts = [...moved.counts];
  counts[index] = (counts[index] ?? 0) + 1;
  return { second: moved.second, counts };
}

/** Calls a second over the last ten whole seconds before `nowMs`: `41/s`, `0.3/s`, `0/s`. */
export function rateText(rate: CallRate, nowMs: number): string {
  const whole = countsUpTo(rate, Math.floor(nowMs / 1000) - 1);
  const perSecond = whole.reduce((sum, count) => sum + count, 0) / SECONDS;
  return `${perSecond >= 10 || perSecond === 0 ? Math.round(perSecond) : perSecond.toFixed(1)}/s`;
}

/** One bar a second, the tallest for the busiest of them; no bar is shown for a second without calls. */
export function sparkline(rate: CallRate, nowMs: number): string {
  const counts = countsUpTo(rate, Math.floor(nowMs / 1000));
  const most = Math.max(1, ...counts);
  return counts
    .map((count) => (count === 0 ? " " : (BARS[Math.ceil((count / most) * BARS.length) - 1] ?? BARS[0])))
    .join("");
}

function countsUpTo(rate: CallRate, second: number): number[] {
  return Array.from({ length: SECONDS }, (_, index) => {
    const age = second - (SECONDS - 1 - index);
    return rate.counts[rate.counts.length - 1 - (rate.second - age)] ?? 0;
  });
}
