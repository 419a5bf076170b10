import { CodedError } from "../coded-error.js";
import { nearestHint } from "./policy-names.js";
import { nearestTimeZone } from "./time-zone.js";

/** When a rule speaks: days and hours of a zone, from and until a moment. All that is given must hold. */
export interface TimeWindow {
  readonly text: string;
  contains(epochMs: number): boolean;
  /** `Wed 12:00 Europe/Berlin`. */
  describe(epochMs: number): string;
}

export interface TimeText {
  readonly days?: string | readonly string[] | undefined;
  readonly hours?: string | readonly string[] | undefined;
  readonly zone?: string | undefined;
  readonly after?: string | undefined;
  readonly before?: string | undefined;
}

const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"] as const;
const MINUTES_OF_DAY = 24 * 60;

/** A span of minutes of a day, its end not included; one whose end is not later than its start goes on after midnight. */
interface Span {
  readonly from: number;
  readonly to: number;
}

/** Reads `time` of a rule. Throws CodedError `time-invalid` with the key in its message. */
export function parseTimeWindow(written: TimeText): TimeWindow {
  const zone = written.zone ?? "UTC";
  const localTime = localTimeIn(zone);
  const days = written.days === undefined ? undefined : new Set(listOf(written.days).flatMap(daysOf));
  const spans = written.hours === undefined ? undefined : listOf(written.hours).map(spanOf);
  const after = written.after === undefined ? undefined : momentOf("after", written.after, localTime);
  const before = written.before === undefined ? undefined : momentOf("before", written.before, localTime);
  if (after !== undefined && before !== undefined && before <= after) {
    throw new CodedError("time-invalid", "before is not later than after: the rule never speaks");
  }
  const words = [
    ...(days === undefined ? [] : [DAYS.filter((_, day) => days.has(day)).join(",")]),
    ...(spans === undefined ? [] : [spans.map(({ from, to }) => `${clockTime(from)}-${clockTime(to)}`).join(",")]),
    ...(days === undefined && spans === undefined ? [] : [zone]),
    ...(after === undefined ? [] : [`after ${new Date(after).toISOString()}`]),
    ...(before === undefined ? [] : [`before ${new Date(before).toISOString()}`]),
  ];
  return {
    text: words.join(" "),
    contains(epochMs) {
      if (!Number.isFinite(epochMs)) return false;
      if (after !== undefined && epochMs < after) return false;
      if (before !== undefined && epochMs >= before) return false;
      if (days === undefined && spans === undefined) return true;
      const { day, minute } = localTime(epochMs);
      if (spans === undefined) return days?.has(day) === true;
      return spans.some((span) => isWithin(span, day, minute, days));
    },
    describe(epochMs) {
      if (!Number.isFinite(epochMs)) return "no time";
      const { day, minute } = localTime(epochMs);
      const name = DAYS[day] ?? "";
      return `${new Date(epochMs).toISOString().slice(0, 10)} ${name} ${clockTime(minute)} ${zone}`;
    },
  };
}

/** What goes on after midnight belongs to the day on which it began. */
function isWithin({ from, to }: Span, day: number, minute: number, days: ReadonlySet<number> | undefined): boolean {
  const allowed = (which: number) => days === undefined || days.has(which);
  if (from < to) return minute >= from && minute < to && allowed(day);
  return (minute >= from && allowed(day)) || (minute < to && allowed((day + 6) % 7));
}

function listOf(value: string | readonly string[]): readonly string[] {
  return typeof value === "string" ? value.split(",").map((part) => part.trim()) : value;
}

function daysOf(text: string): readonly number[] {
  const [first = "", last = first, ...more] = text
    .toLowerCase()
    .split("-")
    .map((part) => part.trim());
  const [from, to] = [dayOf(first), dayOf(last)];
  if (from === -1 || to === -1 || more.length > 0) {
    const [wrong] = [first, last].filter((name) => dayOf(name) === -1);
    const hint = wrong === undefined || more.length > 0 ? undefined : nearestHint(wrong, DAYS);
    throw new CodedError("time-invalid", `days: ${JSON.stringify(text)} is no day; write mon-fri or sat, sun`, {
      ...(hint !== undefined && { hint }),
    });
  }
  return Array.from({ length: ((to - from + 7) % 7) + 1 }, (_, step) => (from + step) % 7);
}

function dayOf(name: string): number {
  return (DAYS as readonly string[]).indexOf(name);
}

function spanOf(text: string): Span {
  const match = /^([01]\d|2[0-4]):([0-5]\d)\s*-\s*([01]\d|2[0-4]):([0-5]\d)$/.exec(text);
  const [from, to] = [minutesOf(match?.[1], match?.[2]), minutesOf(match?.[3], match?.[4])];
  if (match === null || from === to || from >= MINUTES_OF_DAY || to > MINUTES_OF_DAY) {
    throw new CodedError("time-invalid", `hours: ${JSON.stringify(text)} is no span of a day; write "09:00-17:00"`);
  }
  return { from, to };
}

function minutesOf(hours: string | undefined, minutes: string | undefined): number {
  return Number(hours) * 60 + Number(minutes);
}

function clockTime(minutes: number): string {
  return `${String(Math.floor(minutes / 60)).padStart(2, "0")}:${String(minutes % 60).padStart(2, "0")}`;
}

interface LocalTime {
  /** 0 is Monday. */
  readonly day: number;
  readonly minute: number;
}

const MINUTE_MS = 60_000;

/** Asking Intl costs as much as the rest of a decision; within one minute the answer is the same. */
function localTimeIn(zone: string): (epochMs: number) => LocalTime {
  let format: Intl.DateTimeFormat;
  try {
    const parts = { weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" } as const;
    format = new Intl.DateTimeFormat("en-US", { timeZone: zone, ...parts });
  } catch {
    const hint = nearestTimeZone(zone);
    throw new CodedError("time-invalid", `zone: ${JSON.stringify(zone)} is no time zone; write Europe/Berlin or UTC`, {
      ...(hint !== undefined && { hint }),
    });
  }
  let known: { readonly minute: number; readonly time: LocalTime } | undefined;
  return (epochMs) => {
    const minute = Math.floor(epochMs / MINUTE_MS);
    if (known?.minute !== minute) {
      const parts = new Map(format.formatToParts(epochMs).map(({ type, value }) => [type, value]));
      const day = dayOf((parts.get("weekday") ?? "").toLowerCase());
      known = { minute, time: { day, minute: minutesOf(parts.get("hour"), parts.get("minute")) } };
    }
    return known.time;
  };
}

/** A day begins at midnight of the zone; a moment with its own offset needs none. */
function momentOf(key: string, text: string, localTime: (epochMs: number) => LocalTime): number {
  const wrong = () =>
    new CodedError(
      "time-invalid",
      `${key}: ${JSON.stringify(text)} is no time; write 2026-01-31 or 2026-01-31T17:00:00Z`,
    );
  const date = text.slice(0, 10);
  const midnight = Date.parse(`${date}T00:00:00Z`);
  if (!/^\d{4}-\d{2}-\d{2}$/.test(date) || Number.isNaN(midnight)) throw wrong();
  if (new Date(midnight).toISOString().slice(0, 10) !== date) throw wrong();
  if (text === date) {
    // Twice: the offset at the first guess may be that of the other side of a change of clocks.
    let moment = midnight;
    for (let round = 0; round < 2; round += 1) moment = midnight - offsetAt(moment, localTime);
    return moment;
  }
  if (!/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})$/.test(text)) throw wrong();
  const moment = Date.parse(text);
  if (Number.isNaN(moment)) throw wrong();
  return moment;
}

/** How much later the zone's clocks are than UTC, in milliseconds. Its day says which way round: UTC+14 and UTC-10 show the same hour. */
function offsetAt(epochMs: number, localTime: (epochMs: number) => LocalTime): number {
  const { day, minute } = localTime(epochMs);
  const utcMinutes = Math.floor(epochMs / MINUTE_MS);
  const utcDay = Math.floor(utcMinutes / MINUTES_OF_DAY) + DAY_OF_EPOCH;
  const days = modulo(day - utcDay, DAYS.length);
  const daysAhead = days === DAYS.length - 1 ? -1 : days;
  return (daysAhead * MINUTES_OF_DAY + minute - modulo(utcMinutes, MINUTES_OF_DAY)) * MINUTE_MS;
}

/** 1 January 1970 was a Thursday. */
const DAY_OF_EPOCH = 3;

/** Never negative, also for moments before 1970. */
function modulo(value: number, divisor: number): number {
  return ((value % divisor) + divisor) % divisor;
}
