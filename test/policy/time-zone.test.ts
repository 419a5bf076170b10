import { expect, test } from "vitest";
import { compileCondition } from "../../src/policy/condition.js";
import { fieldsIn, isTimeZone } from "../../src/policy/time-zone.js";
import { answeredAtOnce, conditionInputOf } from "./condition-input.js";

const outcome = (source: string, now: string, args: Record<string, unknown> = {}) =>
  answeredAtOnce(compileCondition(source).evaluate(conditionInputOf(args, { now: new Date(now) })));

/** Berlin leaves out 02:00 to 03:00 on 30 March 2025, and has it twice on 26 October. */
test.each([
  ["2025-03-30T00:59:59Z", 1],
  ["2025-03-30T01:00:00Z", 3],
  ["2025-10-26T00:30:00Z", 2],
  ["2025-10-26T01:30:00Z", 2],
  ["2025-10-26T02:00:00Z", 3],
  ["2025-12-31T23:00:00Z", 0],
])("at %s it is %i o'clock in Berlin, whatever zone this machine is in", (now, hours) => {
  const saved = process.env.TZ;
  try {
    for (const zone of ["UTC", "Europe/Berlin", "America/New_York", "Pacific/Kiritimati"]) {
      process.env.TZ = zone;
      expect(outcome(`now.getHours("Europe/Berlin") == ${hours}`, now)).toEqual({ outcome: "true" });
    }
  } finally {
    if (saved === undefined) delete process.env.TZ;
    else process.env.TZ = saved;
  }
});

test.each([
  ['now.getDayOfWeek("Pacific/Auckland") == 4', "2025-01-15T12:00:00Z"],
  ["now.getDayOfWeek() == 3", "2025-01-15T12:00:00Z"],
  ['now.getDate("Asia/Kolkata") == 1 && now.getMonth("Asia/Kolkata") == 0', "2024-12-31T18:30:00Z"],
  ['now.getFullYear("Asia/Kolkata") == 2025 && now.getMinutes("Asia/Kolkata") == 0', "2024-12-31T18:30:00Z"],
  ['now.getDayOfYear("UTC") == 365 && now.getDayOfYear() == 365', "2024-12-31T23:59:59Z"],
  ['now.getDayOfMonth("+02:00") == 0 && now.getHours("-00:30") == 22', "2025-03-31T23:00:00Z"],
  ['now.getSeconds("Europe/Berlin") == 7 && now.getMilliseconds("Europe/Berlin") == 250', "2025-01-01T00:00:07.250Z"],
  // Business hours.
  [
    'now.getDayOfWeek("Europe/Berlin") in [1, 2, 3, 4, 5] && now.getHours("Europe/Berlin") >= 9 && now.getHours("Europe/Berlin") < 18',
    "2025-07-15T07:00:00Z",
  ],
])("%s at %s", (source, now) => {
  expect(outcome(source, now)).toEqual({ outcome: "true" });
  expect(outcome(`!(${source})`, now)).toEqual({ outcome: "false" });
});

test.each(["Europe/Belin", "", "+25:00", "+02:61", "02", "Etc/../UTC", "x".repeat(100)])("%j is no zone", (zone) => {
  expect(isTimeZone(zone)).toBe(false);
  expect(() => compileCondition(`now.getHours(${JSON.stringify(zone)}) < 9`)).toThrow("no such time zone");
  expect(outcome("now.getHours(args.zone) < 9", "2025-01-01T00:00:00Z", { zone })).toMatchObject({
    outcome: "error",
    why: expect.stringContaining("no such time zone"),
  });
});

test("a zone that the caller chooses is looked up when it is asked for", () => {
  expect(outcome("now.getHours(args.zone) == 9", "2025-01-01T00:00:00Z", { zone: "Asia/Tokyo" }).outcome).toBe("true");
  expect(fieldsIn("Asia/Tokyo", new Date(0)).toISOString()).toBe("1970-01-01T09:00:00.000Z");
});
