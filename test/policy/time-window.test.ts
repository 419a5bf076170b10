import { expect, test } from "vitest";
import { parseTimeWindow, type TimeText } from "../../src/policy/time-window.js";

test.each<[TimeText, string, boolean]>([
  [{ days: "mon-fri" }, "2025-01-15T12:00:00Z", true],
  [{ days: "mon-fri" }, "2025-01-18T12:00:00Z", false],
  [{ days: "sat-mon" }, "2025-01-19T12:00:00Z", true],
  [{ days: "sat-mon" }, "2025-01-21T12:00:00Z", false],
  [{ days: ["tue", "thu"] }, "2025-01-14T00:00:00Z", true],
  [{ hours: "09:00-17:00" }, "2025-01-15T09:00:00Z", true],
  [{ hours: "09:00-17:00" }, "2025-01-15T08:59:59.999Z", false],
  [{ hours: "09:00-17:00" }, "2025-01-15T17:00:00Z", false],
  [{ hours: ["09:00-12:00", "13:00-24:00"] }, "2025-01-15T12:30:00Z", false],
  [{ hours: ["09:00-12:00", "13:00-24:00"] }, "2025-01-15T23:59:00Z", true],
  // What goes on after midnight belongs to the day on which it began.
  [{ days: "fri", hours: "22:00-06:00" }, "2025-01-18T05:59:00Z", true],
  [{ days: "fri", hours: "22:00-06:00" }, "2025-01-17T05:59:00Z", false],
  [{ days: "fri", hours: "22:00-06:00" }, "2025-01-18T06:00:00Z", false],
  // A zone, on both sides of the changes of its clocks.
  [{ hours: "09:00-17:00", zone: "Europe/Berlin" }, "2025-01-15T08:00:00Z", true],
  [{ hours: "09:00-17:00", zone: "Europe/Berlin" }, "2025-07-15T07:00:00Z", true],
  [{ hours: "09:00-17:00", zone: "Europe/Berlin" }, "2025-07-15T06:59:00Z", false],
  [{ hours: "09:00-17:00", zone: "Europe/Berlin" }, "2025-03-30T07:00:00Z", true],
  [{ days: "mon", zone: "Pacific/Auckland" }, "2025-01-12T12:00:00Z", true],
  [{ days: "mon", zone: "Asia/Kolkata", hours: "00:00-00:30" }, "2025-01-12T18:45:00Z", true],
  [{ after: "2025-01-15T12:00:00Z" }, "2025-01-15T12:00:00Z", true],
  [{ after: "2025-01-15T12:00:00Z" }, "2025-01-15T11:59:59Z", false],
  [{ before: "2025-01-15T12:00:00+02:00" }, "2025-01-15T09:59:59Z", true],
  [{ before: "2025-01-15T12:00:00+02:00" }, "2025-01-15T10:00:00Z", false],
  [{ after: "2025-07-01", zone: "Europe/Berlin" }, "2025-06-30T22:00:00Z", true],
  [{ after: "2025-07-01", zone: "Europe/Berlin" }, "2025-06-30T21:59:59Z", false],
  [{ after: "2025-07-01", zone: "America/New_York" }, "2025-07-01T03:59:59Z", false],
  [{ after: "2025-07-01", zone: "America/New_York" }, "2025-07-01T04:00:00Z", true],
  [{ after: "2025-07-01", zone: "Pacific/Kiritimati" }, "2025-06-30T10:00:00Z", true],
  [{ after: "2025-07-01", zone: "Pacific/Kiritimati" }, "2025-06-30T09:59:59Z", false],
  [{ after: "2025-07-01", zone: "Pacific/Honolulu" }, "2025-07-01T10:00:00Z", true],
  [{ after: "2025-07-01", zone: "Pacific/Honolulu" }, "2025-07-01T09:59:59Z", false],
  [{ before: "2025-07-01", zone: "Pacific/Pago_Pago" }, "2025-07-01T10:59:59Z", true],
  [{ before: "2025-07-01", zone: "Pacific/Pago_Pago" }, "2025-07-01T11:00:00Z", false],
  [{ after: "2025-07-01", zone: "Etc/GMT+12" }, "2025-07-01T12:00:00Z", true],
  [{ after: "2025-07-01", zone: "Etc/GMT+12" }, "2025-07-01T11:59:59Z", false],
  [{ after: "1969-12-01", before: "1969-12-02", zone: "Pacific/Honolulu" }, "1969-12-01T12:00:00Z", true],
])("%o at %s: %s", (window, time, expected) => {
  expect(parseTimeWindow(window).contains(Date.parse(time))).toBe(expected);
});

test.each<TimeText>([
  { days: "" },
  { days: "mon-tue-wed" },
  { hours: "17:00-17:00" },
  { hours: "24:00-01:00" },
  { hours: "09:00-25:00" },
  { zone: "Mars/Olympus" },
  { after: "tomorrow" },
  { after: "2025-02-30T12:00:00Z" },
  { after: "2025-01-15T12:00:00" },
  { after: "2025-01-02", before: "2025-01-01" },
])("%o is refused", (window) => {
  expect(() => parseTimeWindow(window)).toThrow(expect.objectContaining({ code: "time-invalid" }));
  expect(parseTimeWindow({ days: "mon" }).text).toBe("mon UTC");
});

test("a clock that shows no time is in no window", () => {
  expect(parseTimeWindow({ days: "mon-sun" }).contains(Number.NaN)).toBe(false);
  expect(parseTimeWindow({ days: "mon-sun" }).contains(0)).toBe(true);
});
