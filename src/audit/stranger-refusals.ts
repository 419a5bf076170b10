import type { Clock } from "../platform/clock.js";
import type { AuditLog } from "./audit-log.js";

/** A refusal of somebody without an identity. Those that agree in all but `detail` and `reason` are alike. */
export interface StrangerRefusal {
  readonly leg: string;
  readonly service: string;
  readonly code: string;
  /** Who as far as it is known: `uid 1000`, a SPIFFE ID; `(none)` where nothing is. */
  readonly who: string;
  readonly detail: string;
  readonly reason: string;
}

/**
 * Strangers are refused for nothing, and each refusal on record is some hundred bytes on disk: so of refusals that are alike the first are recorded one by
 * one, and the rest are counted, and recorded as `N more like these`. What is recorded grows with time, not with what strangers do.
 */
export interface StrangerRefusals {
  /** True if this one is to be recorded by itself; it has been counted else. */
  isRecorded(refusal: StrangerRefusal): boolean;
  /** Records what has been counted so far. */
  close(): void;
}

export interface StrangerBounds {
  /** So many that are alike are recorded one by one at once, … */
  readonly atOnce: number;
  /** … and one more in each such time. */
  readonly everyMs: number;
  /** The first sum comes after so long, later ones twice as late each, as long as it goes on … */
  readonly firstSumMs: number;
  /** … up to this. */
  readonly lastSumMs: number;
  /** So many kinds are told apart. */
  readonly kinds: number;
}

const BOUNDS: StrangerBounds = {
  atOnce: 60,
  everyMs: 60_000,
  firstSumMs: 60_000,
  lastSumMs: 3_600_000,
  kinds: 512,
};

interface Kind {
  tokens: number;
  /** When `tokens` was right. */
  at: number;
  counted: number;
  since: number;
  last: StrangerRefusal;
  sumMs: number;
  cancel: (() => void) | undefined;
}

/** `onSum` is told of each sum that was recorded, in words. */
export function createStrangerRefusals(
  audit: Pick<AuditLog, "append">,
  clock: Clock,
  onSum: (words: string) => void = () => undefined,
  bounds: StrangerBounds = BOUNDS,
): StrangerRefusals {
  const kinds = new Map<string, Kind>();

  function kindOf(refusal: StrangerRefusal, now: number): Kind {
    const key = JSON.stringify([refusal.leg, refusal.service, refusal.code, refusal.who]);
    const known = kinds.get(key);
    if (known !== undefined) return known;
    if (kinds.size >= bounds.kinds) forgetQuiet(now);
    // Legs, services and codes are ours; who calls is not.
    if (kinds.size >= bounds.kinds && refusal.who !== OTHERS) return kindOf({ ...refusal, who: OTHERS }, now);
    const kind: Kind = {
      ...{ tokens: bounds.atOnce, at: now, counted: 0, since: now, last: refusal },
      ...{ sumMs: bounds.firstSumMs, cancel: undefined },
    };
    kinds.set(key, kind);
    return kind;
  }

  function forgetQuiet(now: number): void {
    for (const [key, kind] of kinds) {
      if (kind.cancel === undefined && filled(kind, now) >= bounds.atOnce) kinds.delete(key);
    }
  }

  function filled({ tokens, at }: Kind, now: number): number {
    // A clock that was set back gives nothing.
    return Math.min(bounds.atOnce, tokens + Math.max(0, now - at) / bounds.everyMs);
  }

  function awaitSum(kind: Kind): void {
    kind.cancel = clock.after(kind.sumMs, () => {
      kind.cancel = undefined;
      if (kind.counted === 0) {
        kind.sumMs = bounds.firstSumMs;
        return;
      }
      record(kind);
      kind.sumMs = Math.min(bounds.lastSumMs, kind.sumMs * 2);
      awaitSum(kind);
    });
  }

  function record(kind: Kind): void {
    const { counted, last, since } = kind;
    const { leg, service, code, who, detail, reason } = last;
    kind.counted = 0;
    const until = clock.now();
    try {
      audit.append("refusals.counted", {
        ...{ caller: who, callerDetail: detail, count: counted, leg, reason, rule: code, service },
        ...{ since: new Date(since).toISOString(), until: new Date(until).toISOString(), verdict: "DENY" },
      });
    } catch {
      // They were refused whether or not that can be recorded; the log's owner reports that it cannot be written.
    }
    onSum(
      `${counted} more refusals like these in ${Math.round((until - since) / 1000)} s: ${code} of ${who} at ${service}`,
    );
  }

  return {
    isRecorded(refusal) {
      const now = clock.now();
      const kind = kindOf(refusal, now);
      kind.tokens = filled(kind, now);
      kind.at = now;
      if (kind.tokens >= 1) {
        kind.tokens -= 1;
        return true;
      }
      if (kind.counted === 0) kind.since = now;
      kind.counted += 1;
      kind.last = { ...refusal, who: kind.last.who };
      if (kind.cancel === undefined) awaitSum(kind);
      return false;
    },
    close() {
      for (const kind of kinds.values()) {
        kind.cancel?.();
        kind.cancel = undefined;
        if (kind.counted > 0) record(kind);
      }
    },
  };
}

const OTHERS = "(others)";
