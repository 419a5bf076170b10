import { CodedError } from "../coded-error.js";
import { durationSeconds } from "../config/duration.js";
import { nearestHint } from "./policy-names.js";

/** Whose calls are counted together: each of these has a count of its own. */
export type LimitKey = "identity" | "tool" | "user" | "service";

/** A token bucket; whoever goes on asking when it is empty waits longer each time. */
export interface RateLimit {
  /** So many calls … */
  readonly rate: number;
  /** … in this time. */
  readonly perMs: number;
  /** So many at once after a pause. */
  readonly burst: number;
  readonly keys: readonly LimitKey[];
  readonly backoff: Backoff;
  /** `10 per minute for each identity`. */
  readonly text: string;
}

interface Backoff {
  readonly firstMs: number;
  readonly factor: number;
  readonly maxMs: number;
}

export interface LimitText {
  readonly rate: number;
  readonly per: string;
  readonly burst?: number | undefined;
  readonly for?: LimitKey | readonly LimitKey[] | undefined;
  readonly backoff?: { first?: string | undefined; factor?: number | undefined; max?: string | undefined } | undefined;
}

const UNIT_SECONDS: Readonly<Record<string, number>> = { second: 1, minute: 60, hour: 3600, day: 86_400 };
const STANDARD_BACKOFF: Backoff = { firstMs: 1_000, factor: 2, maxMs: 300_000 };

/** Reads `limit` of a rule: `10 per minute`, or its long form. Throws CodedError `limit-invalid`. */
export function parseLimit(written: string | LimitText): RateLimit {
  const { rate, per, burst, for: keys, backoff } = typeof written === "string" ? shortLimit(written) : written;
  const perSeconds = UNIT_SECONDS[per] ?? durationSeconds(per);
  if (perSeconds === undefined) {
    const near = nearestHint(per, Object.keys(UNIT_SECONDS));
    throw new CodedError(
      "limit-invalid",
      `per: ${JSON.stringify(per)} is no time; write second, minute, hour, day or 30s`,
      { ...(near !== undefined && { hint: near }) },
    );
  }
  const waits: Backoff = {
    firstMs: milliseconds("first", backoff?.first) ?? STANDARD_BACKOFF.firstMs,
    factor: backoff?.factor ?? STANDARD_BACKOFF.factor,
    maxMs: milliseconds("max", backoff?.max) ?? STANDARD_BACKOFF.maxMs,
  };
  if (waits.maxMs < waits.firstMs) throw new CodedError("limit-invalid", "backoff: max is shorter than first");
  const each = [...new Set(typeof keys === "string" ? [keys] : (keys ?? (["identity"] as const)))].sort();
  const words = [
    `${rate} per ${per}`,
    ...(burst === undefined || burst === rate ? [] : [`burst ${burst}`]),
    `for each ${each.join(" and ")}`,
    ...(isStandard(waits) ? [] : [`backoff ${waits.firstMs} ms × ${waits.factor} to ${waits.maxMs} ms`]),
  ];
  return { rate, perMs: perSeconds * 1000, burst: burst ?? rate, keys: each, backoff: waits, text: words.join(" ") };
}

/** True only if whatever `inner` lets through in any time, `outer`, counting alike, lets through too. */
export function isAsLoose(outer: RateLimit, inner: RateLimit): boolean {
  return (
    outer.keys.join() === inner.keys.join() &&
    outer.rate * inner.perMs >= inner.rate * outer.perMs &&
    outer.burst >= inner.burst &&
    outer.backoff.firstMs <= inner.backoff.firstMs &&
    outer.backoff.factor <= inner.backoff.factor &&
    outer.backoff.maxMs <= inner.backoff.maxMs
  );
}

function shortLimit(text: string): LimitText {
  const match = /^([1-9]\d{0,8}) per (\S+)$/.exec(text.trim());
  if (match === null) {
    throw new CodedError("limit-invalid", `${JSON.stringify(text)} is no limit; write 10 per minute`);
  }
  return { rate: Number(match[1]), per: match[2] ?? "" };
}

function milliseconds(key: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const seconds = durationSeconds(text);
  if (seconds === undefined) {
    throw new CodedError("limit-invalid", `backoff: ${key} ${JSON.stringify(text)} is no duration; write 1s, 5m`);
  }
  return seconds * 1000;
}

function isStandard({ firstMs, factor, maxMs }: Backoff): boolean {
  return firstMs === STANDARD_BACKOFF.firstMs && factor === STANDARD_BACKOFF.factor && maxMs === STANDARD_BACKOFF.maxMs;
}
