import { randomInt } from "node:crypto";
import type { Clock } from "../platform/clock.js";
import type { RateLimit } from "./limit.js";

/** What one call takes from one limit. */
export interface Draw {
  /** Two draws of one decision with the same key are one. */
  readonly key: string;
  /** 0 where the call may be made now, else how long until. Changes nothing. */
  waitMs(): number;
  /** Counts the call. */
  take(): void;
  /** What `take` has counted did not take place. At most once. */
  giveBack(): void;
  /** Counts a refusal: the wait grows, and is returned. */
  refuse(): number;
}

/** The counts of all limits. They outlive a reload: a rule of the same name goes on with what it has counted. */
export interface LimitCounts {
  /** `owner` is who calls; `values` what the limit counts by, in the order of its keys. */
  draw(rule: string, limit: RateLimit, owner: string, values: readonly string[]): Draw;
  /** How many counts are kept. */
  readonly size: number;
}

interface Count {
  tokens: number;
  /** When `tokens` was right. */
  at: number;
  /** In a row, since the last call that was let through. */
  refusals: number;
  blockedUntil: number;
  limit: RateLimit;
}

interface Part {
  readonly counts: Map<string, Count>;
  /** By rule: what is counted in common where there is no more room. */
  readonly shared: Map<string, Count>;
}

/**
 * What is counted follows from what callers choose (tools, users, instances), so memory is bounded, and forgetting somebody's debt to make
 * room would be a way to be rid of it. So a count is forgotten only when it is full again. A part that holds nothing but debts lets newcomers
 * share one count. Each caller belongs to one of these parts, and what callers count in common is a part for each rule: a flood can crowd only
 * its own.
 */
const PARTS = 64;
const PER_PART = 4_096;
const LOOKED_AT_FOR_ROOM = 4;

export function createLimitCounts(clock: Clock, seed: number = randomInt(2 ** 31)): LimitCounts {
  const parts = new Map<string | number, Part>();

  function partOf(rule: string, limit: RateLimit, owner: string): Part {
    const place = limit.keys.includes("identity") ? hashOf(owner, seed) % PARTS : rule;
    let part = parts.get(place);
    if (part === undefined) {
      part = { counts: new Map(), shared: new Map() };
      parts.set(place, part);
    }
    return part;
  }

  /** The count as it is now. */
  function current(count: Count, limit: RateLimit, now: number): Count {
    // A clock that was set back gives nothing, and takes away no more than the longest wait.
    if (now < count.at) {
      count.blockedUntil = Math.min(count.blockedUntil, now + limit.backoff.maxMs);
      count.at = now;
    }
    if (count.limit !== limit) {
      count.blockedUntil = Math.min(count.blockedUntil, now + limit.backoff.maxMs);
      count.limit = limit;
    }
    count.tokens = Math.min(limit.burst, count.tokens + ((now - count.at) * limit.rate) / limit.perMs);
    count.at = now;
    return count;
  }

  function isFull(count: Count, now: number): boolean {
    const { limit } = count;
    if (now < count.at || now < count.blockedUntil) return false;
    return count.tokens + ((now - count.at) * limit.rate) / limit.perMs >= limit.burst;
  }

  function hasRoom(part: Map<string, Count>, now: number): boolean {
    if (part.size < PER_PART) return true;
    let looked = 0;
    for (const [key, count] of part) {
      part.delete(key);
      // One that is not full goes to the end, so that the next newcomer looks at others.
      if (!isFull(count, now)) part.set(key, count);
      looked += 1;
      if (part.size < PER_PART || looked === LOOKED_AT_FOR_ROOM) break;
    }
    return part.size < PER_PART;
  }

  return {
    draw(rule, limit, owner, values) {
      const key = keyOf(rule, limit, values);
      const { counts: part, shared: rest } = partOf(rule, limit, owner);
      const known = (now: number) => part.get(key) ?? (hasRoom(part, now) ? undefined : rest.get(rule));

      function changed(now: number): Count {
        const own = part.get(key);
        if (own !== undefined) return current(own, limit, now);
        const fresh: Count = { tokens: limit.burst, at: now, refusals: 0, blockedUntil: 0, limit };
        if (hasRoom(part, now)) {
          part.set(key, fresh);
          return fresh;
        }
        const common = rest.get(rule) ?? fresh;
        rest.set(rule, common);
        return current(common, limit, now);
      }

      let taken: Count | undefined;

      return {
        key,
        waitMs() {
          const now = clock.now();
          const count = known(now);
          if (count === undefined) return 0;
          const { tokens, blockedUntil } = current(count, limit, now);
          return Math.max(blockedUntil - now, untilOneToken(tokens, limit), 0);
        },
        take() {
          const count = changed(clock.now());
          taken = count;
          count.tokens = Math.max(0, count.tokens - 1);
          count.refusals = 0;
        },
        giveBack() {
          if (taken === undefined) return;
          // Under the numbers that hold by now: there may have been a reload in between.
          current(taken, taken.limit, clock.now()).tokens += 1;
        },
        refuse() {
          const now = clock.now();
          const count = changed(now);
          const { firstMs, factor, maxMs } = limit.backoff;
          const wait = Math.min(maxMs, firstMs * factor ** Math.min(count.refusals, 64));
          count.refusals += 1;
          count.blockedUntil = now + wait;
          return Math.max(wait, untilOneToken(count.tokens, limit));
        },
      };
    },
    get size() {
      return [...parts.values()].reduce((sum, { counts, shared }) => sum + counts.size + shared.size, 0);
    },
  };
}

/** What comes before the values in a key: of each limit the same. */
const prefixes = new WeakMap<RateLimit, { readonly rule: string; readonly prefix: string }>();

/** One text for each rule and what it counts by. Values are callers' own, so each stands behind its length: no two lists give one key. */
function keyOf(rule: string, limit: RateLimit, values: readonly string[]): string {
  let known = prefixes.get(limit);
  if (known?.rule !== rule) {
    known = { rule, prefix: JSON.stringify([rule, limit.keys]) };
    prefixes.set(limit, known);
  }
  let key = known.prefix;
  for (const value of values) key += measured(value);
  return key;
}

function measured(value: string): string {
  return `${value.length}:${value}`;
}

/** Thirds do not add up to one. */
const ROUNDING = 1e-9;

function untilOneToken(tokens: number, limit: RateLimit): number {
  return tokens >= 1 - ROUNDING ? 0 : Math.ceil(((1 - tokens) * limit.perMs) / limit.rate);
}

/** FNV-1a from a seed that nobody outside knows: who shares a part with whom cannot be chosen. */
function hashOf(text: string, seed: number): number {
  let hash = seed ^ 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  return hash >>> 0;
}
