import { nearestHint } from "./policy-names.js";

const MAX_FORMATS = 64;
const OFFSET = /^[+-]?(\d\d):(\d\d)$/;
const formats = new Map<string, Intl.DateTimeFormat>();

/** Whether `zone` is one of the IANA database, or an offset such as `+02:00`. */
export function isTimeZone(zone: string): boolean {
  try {
    formatOf(zone);
    return true;
  } catch {
    return false;
  }
}

/** `did you mean Europe/Berlin?` for a name that is near one of the IANA database. */
export function nearestTimeZone(zone: string): string | undefined {
  return zone.length > 64 ? undefined : nearestHint(zone, Intl.supportedValuesOf("timeZone"));
}

/**
 * The date and the hour that a clock in `zone` shows at `time`, as the UTC fields of the date that is returned. Independent of this machine's own
 * zone. Throws Error for a zone that does not exist.
 */
export function fieldsIn(zone: string, time: Date): Date {
  const parts: Record<string, number> = {};
  for (const { type, value } of formatOf(zone).formatToParts(time)) parts[type] = Number(value);
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts;
  const local = new Date(0);
  // Not Date.UTC, which takes the years 0 to 99 for 1900 to 1999.
  local.setUTCFullYear(year, month - 1, day);
  local.setUTCHours(hour, minute, second, time.getUTCMilliseconds());
  return local;
}

function formatOf(zone: string): Intl.DateTimeFormat {
  const known = formats.get(zone);
  if (known !== undefined) return known;
  const [, hours = "0", minutes = "0"] = OFFSET.exec(zone) ?? [];
  if (zone.length > 64 || Number(hours) > 23 || Number(minutes) > 59) throw noSuchZone(zone);
  let format: Intl.DateTimeFormat;
  try {
    format = new Intl.DateTimeFormat("en-US", {
      // CEL also has offsets without a sign.
      timeZone: /^\d\d:/.test(zone) ? `+${zone}` : zone,
      calendar: "iso8601",
      numberingSystem: "latn",
      hourCycle: "h23",
      ...{ year: "numeric", month: "numeric", day: "numeric" },
      ...{ hour: "numeric", minute: "numeric", second: "numeric" },
    });
  } catch {
    throw noSuchZone(zone);
  }
  // A caller may send any number of zones.
  if (formats.size >= MAX_FORMATS) formats.clear();
  formats.set(zone, format);
  return format;
}

function noSuchZone(zone: string): Error {
  return new Error(`no such time zone: ${JSON.stringify(zone.slice(0, 64))}`);
}
