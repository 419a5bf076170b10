import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { contentOf, DerError, encode, TAG, timeElement } from "../../src/spiffe/der.js";

/** As its digits, with the seconds of the century where it is a UTCTime. */
function read(time: Date): string {
  const der = encode(timeElement(time));
  const tag = der[0] === TAG.utcTime ? TAG.utcTime : TAG.generalizedTime;
  return `${tag === TAG.utcTime ? "utc" : "generalized"} ${contentOf(der, tag).toString("latin1")}`;
}

describe("DER times", () => {
  it("are the digits of ISO 8601 without its punctuation, of two years' digits before 2050", () => {
    const within = { min: new Date("1950-01-01T00:00:00Z"), max: new Date("9999-12-31T23:59:59.999Z") };
    fc.assert(
      fc.property(fc.date({ ...within, noInvalidDate: true }), (time) => {
        const digits = time.toISOString().replaceAll(/[-:T]|\..*/g, "");
        expect(read(time)).toBe(time.getUTCFullYear() < 2050 ? `utc ${digits.slice(2)}Z` : `generalized ${digits}Z`);
      }),
    );
    expect(read(new Date("2049-12-31T23:59:59.999Z"))).toBe("utc 491231235959Z");
    expect(read(new Date("2050-01-01T00:00:00Z"))).toBe("generalized 20500101000000Z");
  });

  it("say no time that they cannot say", () => {
    for (const time of [Number.NaN, Date.parse("1949-12-31T23:59:59Z"), Date.parse("+010000-01-01T00:00:00Z")]) {
      expect(() => timeElement(new Date(time))).toThrow(DerError);
    }
  });
});
