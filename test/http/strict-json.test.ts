import fc from "fast-check";
import { expect, test } from "vitest";
import type { Refusal } from "../../src/http/refusal.js";
import { parseStrictJson } from "../../src/http/strict-json.js";
import { runs } from "../properties.js";

function outcomeOf(text: string): unknown {
  try {
    return JSON.stringify(parseStrictJson(Buffer.from(text)));
  } catch (thrown) {
    return (thrown as Refusal).code;
  }
}

const objectOf = (keys: readonly string[]) => `{${keys.map((key) => `${JSON.stringify(key)}:1`).join(",")}}`;

test("a key that is there, or there in another case, is found among few and among many", () => {
  const keys = Array.from({ length: 20 }, (_, index) => `k${index}`);
  expect(outcomeOf(objectOf(keys))).toBe(objectOf(keys));
  for (let count = 1; count <= keys.length; count += 1) {
    for (const again of keys.slice(0, count)) {
      expect(outcomeOf(objectOf([...keys.slice(0, count), again]))).toBe("json-duplicate-key");
      expect(outcomeOf(objectOf([...keys.slice(0, count), again.toUpperCase()]))).toBe("json-ambiguous-key");
    }
  }
});

test("property: what is read is what JSON.parse reads, or nothing", () => {
  const piece = fc.oneof(
    fc.constantFrom(...'{}[]:,"\\ 01259-+.eE'),
    fc.constantFrom('"a"', '"b"', '"\\n"', '"é"', "true", "null", "1234567890", "12345678901", "1.5", "1e5", "00"),
  );
  const texts = fc.oneof(
    fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join("")),
    fc.json(),
  );
  let read = 0;
  fc.assert(
    fc.property(texts, (text) => {
      const outcome = outcomeOf(text);
      if (typeof outcome === "string" && outcome.startsWith("json-")) return;
      read += 1;
      expect(outcome).toBe(JSON.stringify(JSON.parse(text)));
    }),
    { numRuns: runs(500) },
  );
  expect(read).toBeGreaterThan(50);
});
