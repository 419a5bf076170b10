import { describe, expect, it } from "vitest";
import { drawRandom } from "../../src/identity/random-stock.js";

describe("unpredictable octets from stock", () => {
  it("gives no octet twice: what one caller wipes is nobody else's, across refills too", () => {
    const seen = new Set<string>();
    const drawn = Array.from({ length: 2_000 }, (_, index) => drawRandom(index % 2 === 0 ? 16 : 32));
    for (const [index, octets] of drawn.entries()) {
      expect(octets).toHaveLength(index % 2 === 0 ? 16 : 32);
      seen.add(octets.toString("hex"));
    }
    expect(seen.size).toBe(drawn.length);
    const kept = drawn.map((octets) => octets.toString("hex"));
    for (const [index, octets] of drawn.entries()) {
      expect(octets.toString("hex")).toBe(kept[index]);
      octets.fill(0);
    }
  });

  it("gives as many as are asked for, also more than a stock holds", () => {
    for (const size of [0, 4096, 1, 4097, 10_000]) expect(drawRandom(size)).toHaveLength(size);
  });
});
