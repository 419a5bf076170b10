import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { countCall, noCalls, rateText, sparkline } from "../../src/dashboard/call-rate.js";
import { cut, filled, filledSpans, widthOf, wrap } from "../../src/dashboard/text-line.js";
import { bytesPassed, duration, expiryOf, shortCaller, timeLeft } from "../../src/dashboard/words.js";

describe("widths", () => {
  const anyText = fc.string({ unit: "grapheme", maxLength: 40 });

  test("a filled text is exactly as wide as asked, whatever it is made of", () => {
    fc.assert(
      fc.property(anyText, fc.integer({ min: 1, max: 40 }), (text, width) => {
        expect(widthOf(cut(text, width))).toBeLessThanOrEqual(width);
        expect(widthOf(filled(text, width))).toBe(width);
      }),
    );
  });

  test("spans together too", () => {
    fc.assert(
      fc.property(fc.array(anyText, { maxLength: 5 }), fc.integer({ min: 1, max: 60 }), (texts, width) => {
        const spans = filledSpans(
          texts.map((text) => ({ text })),
          width,
        );
        expect(spans.reduce((sum, span) => sum + widthOf(span.text), 0)).toBe(width);
      }),
    );
  });

  test("wide characters count two cells, and what is cut off shows", () => {
    expect(cut("会計係の担当者", 7)).toBe("会計係…");
    expect(filled("会計", 6)).toBe("会計  ");
    expect(cut("issue_refund", 6)).toBe("issue…");
  });

  test("wrapping loses nothing but spaces", () => {
    expect(wrap("no identity: python3 other.py", 12)).toEqual(["no identity:", "python3", "other.py"]);
    expect(wrap("spiffe://shop.local/agents/billing", 10)).toEqual(["spiffe://s", "hop.local/", "agents/bil", "ling"]);
    expect(wrap("", 10)).toEqual([""]);
  });
});

describe("words", () => {
  test.each([
    [0, "0:00"],
    [-5_000, "0:00"],
    [58_000, "0:58"],
    [372_000, "6:12"],
    [3_840_000, "1h04"],
    [259_200_000, "3d"],
  ])("%i ms left is %s", (milliseconds, text) => {
    expect(timeLeft(milliseconds)).toBe(text);
  });

  test.each([
    [3.14, "3.1 ms"],
    [412.4, "412 ms"],
    [2_400, "2.4 s"],
  ])("%f ms took %s", (milliseconds, text) => {
    expect(duration(milliseconds)).toBe(text);
  });

  test("a caller is short only where it cannot be taken for another", () => {
    const names = new Set(["agents/billing", "agents/planner", "jobs/planner"]);
    expect(shortCaller("agents/billing", names)).toBe("billing");
    expect(shortCaller("agents/planner", names)).toBe("agents/planner");
    expect(shortCaller("spiffe://evil.example/agents/billing", names)).toBe("spiffe://evil.example/agents/billing");
    expect(shortCaller("elsewhere/billing", names)).toBe("elsewhere/billing");
    expect(shortCaller("(none)", names)).toBe("(none)");
  });

  test("expiry: time left, next rotation, rotation due, expired, none", () => {
    const now = Date.parse("2026-11-22T12:00:00Z");
    const identity = { name: "a", spiffeId: "spiffe://t/a", how: "", pids: [], since: now - 300_000 };
    const notAfter = "2026-11-22T12:05:00Z";
    expect(expiryOf({ ...identity, notAfter, rotateAt: "2026-11-22T12:01:00Z" }, now)).toEqual({
      left: "5:00",
      share: 0.5,
      next: "↻ 1:00",
    });
    expect(expiryOf({ ...identity, notAfter, rotateAt: "2026-11-22T11:59:00Z" }, now).next).toBe("↻ now");
    expect(expiryOf({ ...identity, notAfter: "2026-11-22T11:59:59Z" }, now).left).toBe("EXPIRED");
    expect(expiryOf(identity, now).left).toBe("no SVID");
  });
});

describe("rate", () => {
  const second = 1_000_000_000;

  test("counts whole seconds, the newest bar on the right", () => {
    let rate = noCalls;
    for (let index = 0; index < 20; index += 1) rate = countCall(rate, second);
    for (let index = 0; index < 10; index += 1) rate = countCall(rate, second + 1_000);
    expect(rateText(rate, second + 2_000)).toBe("3.0/s");
    expect(sparkline(rate, second + 2_000)).toBe("       █▄ ");
    expect(rateText(rate, second + 60_000)).toBe("0/s");
    expect(sparkline(rate, second + 60_000).trim()).toBe("");
  });

  test("an event that comes late belongs to its second; one from long ago to none", () => {
    const rate = countCall(countCall(countCall(noCalls, second), second - 2_000), second - 60_000);
    expect(rate.counts).toEqual([0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
  });
});

test.each([
  [0, 999, "↑0 B ↓999 B"],
  [1_000, 99_949, "↑1.0 kB ↓99.9 kB"],
  [150_000, 999_999, "↑150 kB ↓1000 kB"],
  [2_000_000_000, 3e15, "↑2.0 GB ↓3000 TB"],
])("%d bytes one way and %d the other in a few cells", (sent, received, text) => {
  expect(bytesPassed({ sent, received })).toBe(text);
  expect(bytesPassed({})).toBeUndefined();
});
