/** Time as a parameter, so that tests move it instead of sleeping. */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** Calls `callback` once after `delayMs`; the returned function cancels. A pending call never keeps the process alive. */
  after(delayMs: number, callback: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** Times as texts (RFC 3339, UTC, milliseconds), one after the other: what they have in common with the one before is not written anew. */
export function isoTimes(): (now: number) => string {
  let [at, text, second, untilSecond] = [Number.NaN, "", Number.NaN, ""];
  return (now) => {
    if (now === at) return text;
    const itsSecond = Math.floor(now / 1_000);
    if (itsSecond !== second) untilSecond = new Date(itsSecond * 1_000).toISOString().slice(0, -"000Z".length);
    second = itsSecond;
    at = now;
    text = `${untilSecond}${String(Math.trunc(now) - itsSecond * 1_000).padStart(3, "0")}Z`;
    return text;
  };
}
