import fc from "fast-check";
import { expect, test } from "vitest";
import { isoTimes } from "../../src/platform/clock.js";

const LAST_OF_YEAR_9999 = 253_402_300_799_999;

test("times are written as the language writes them, whatever came before", () => {
  const near = fc.integer({ min: -2_000, max: 2_000 });
  const times = fc.tuple(fc.integer({ min: 0, max: LAST_OF_YEAR_9999 - 2_000 }), fc.array(near, { minLength: 1 }));
  fc.assert(
    fc.property(times, ([first, steps]) => {
      const text = isoTimes();
      for (const step of steps) {
        const now = Math.max(0, first + step);
        expect(text(now)).toBe(new Date(now).toISOString());
      }
    }),
  );
});
