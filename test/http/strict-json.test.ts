import fc from "fast-check";
import { expect, test } from "vitest";
import { BodyBytes } from "../../src/http/body-bytes.js";
import { JsonInPieces } from "../../src/http/json-in-pieces.js";
import type { Refusal } from "../../src/http/refusal.js";
import { type Json, parseStrictJson, parseStrictJsonInTurns } from "../../src/http/strict-json.js";
import { runs } from "../properties.js";

function outcomeOf(text: string, read: (text: string) => Json = atOnce): unknown {
  try {
    return JSON.stringify(read(text));
  } catch (thrown) {
    return (thrown as Refusal).code;
  }
}

const atOnce = (text: string): Json => parseStrictJson(Buffer.from(text));

/** Read in pieces of so many values. */
const inPiecesOf =
  (values: number) =>
  (text: string): Json => {
    const reader = new JsonInPieces(BodyBytes.of(Buffer.from(text)).texts());
    while (!reader.read(values));
    reader.end();
    return reader.value;
  };

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

const textsOfJson = () => {
  const piece = fc.oneof(
    fc.constantFrom(...'{}[]:,"\\ 01259-+.eE'),
    fc.constantFrom('"a"', '"b"', '"\\n"', '"é"', "true", "null", "1234567890", "12345678901", "1.5", "1e5", "00"),
  );
  return fc.oneof(
    fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join("")),
    fc.json(),
  );
};

test("property: what is read is what JSON.parse reads, or nothing", () => {
  const texts = textsOfJson();
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

test("property: in pieces, however small, the same is read, or refused for the same cause", () => {
  const broken = fc
    .tuple(fc.json(), fc.nat(), fc.constantFrom("", "{", "}", '"', "\\", ",", "\u0001", '"a":1,', '"A":1,'))
    .map(([text, at, put]) => {
      const place = at % (text.length + 1);
      return text.slice(0, place) + put + text.slice(place + (at % 2));
    });
  const spaced = fc.jsonValue().map((value) => JSON.stringify(value, undefined, 2));
  let [read, refused] = [0, 0];
  fc.assert(
    fc.property(fc.oneof(textsOfJson(), broken, spaced), fc.integer({ min: 1, max: 9 }), (text, values) => {
      const wellFormed = Buffer.from(text).toString();
      const outcome = outcomeOf(wellFormed);
      expect(outcomeOf(wellFormed, inPiecesOf(values))).toBe(outcome);
      if (typeof outcome === "string" && outcome.startsWith("json-")) {
        refused += 1;
        return;
      }
      read += 1;
      expect(outcome).toBe(JSON.stringify(JSON.parse(wellFormed)));
    }),
    { numRuns: runs(500) },
  );
  expect(read).toBeGreaterThan(50);
  expect(refused).toBeGreaterThan(50);
});

test("property: a long string is the same in pieces, wherever its escapes and pairs stand", () => {
  const part = fc.constantFrom("a", "é", "\u{1f600}", '"', "\\", "\n", "\u0001", "\u2028");
  const escaped = (text: string) =>
    [...text]
      .map((one) =>
        [...Array(one.length).keys()].map((at) => `\\u${one.charCodeAt(at).toString(16).padStart(4, "0")}`).join(""),
      )
      .join("");
  fc.assert(
    fc.property(
      fc.array(part, { minLength: 1, maxLength: 9 }),
      fc.nat(40),
      fc.boolean(),
      (parts, before, asEscapes) => {
        const text = "x".repeat(before) + parts.join("").repeat(9_000);
        const literal = asEscapes ? `"${escaped(text)}"` : JSON.stringify(text);
        expect(inPiecesOf(4)(`[${literal}]`)).toEqual([text]);
      },
    ),
    { numRuns: runs(10) },
  );
});

test.each([
  [`["${"a".repeat(100_000)}`, "json-malformed"],
  [`["${"a".repeat(100_000)}\\u00zz"]`, "json-malformed"],
  [`["${"a".repeat(100_000)}\\ud800"]`, "json-surrogate"],
  [`["${"a".repeat(100_000)}\n"]`, "json-malformed"],
  [`{"${"a".repeat(20_000)}":1}`, "json-keys"],
  [`{"${"\\u0061".repeat(20_000)}":1}`, "json-keys"],
  [`[0.${"1".repeat(2_000)}]`, "json-number"],
  [`[${"1".repeat(2_000)}]`, "json-number"],
  [`${"[".repeat(66)}${"]".repeat(66)}`, "json-depth"],
  [`[1]${" ".repeat(50_000)}x`, "json-malformed"],
])("what is long and wrong is refused at once and in pieces alike: %#", (text, code) => {
  expect(outcomeOf(text)).toBe(code);
  expect(outcomeOf(text, inPiecesOf(1_000))).toBe(code);
});

test.each([
  ["values", (count: number) => `[${Array.from({ length: count - 1 }, () => "1").join(",")}]`, 512 * 1024],
  ["lists", (count: number) => `[${Array.from({ length: count - 1 }, () => "[]").join(",")}]`, 64 * 1024],
  ["objects", (count: number) => `[${Array.from({ length: count - 1 }, () => "{}").join(",")}]`, 64 * 1024],
])("a long text holds so many %s and no more", async (_, textOf, most) => {
  const read = (count: number) =>
    parseStrictJsonInTurns(BodyBytes.of(Buffer.from(textOf(count))), async () => undefined);
  expect(await read(most)).toHaveLength(most - 1);
  await expect(read(most + 1)).rejects.toMatchObject({ code: "json-values", status: 400 });
});

test("a long text is read with a pause for each piece of it, and not at all for who has gone", async () => {
  const bytes = Buffer.from(JSON.stringify(Array.from({ length: 100_000 }, () => 1)));
  let pauses = 0;
  const pause = async () => {
    pauses += 1;
  };
  expect(await parseStrictJsonInTurns(BodyBytes.of(bytes), pause)).toHaveLength(100_000);
  expect(pauses).toBeGreaterThan(100_000 / 4_096);
  const gone = async () => {
    throw new Error("gone");
  };
  await expect(parseStrictJsonInTurns(BodyBytes.of(bytes), gone)).rejects.toThrow("gone");
  expect(await parseStrictJsonInTurns(BodyBytes.of(Buffer.from("[1]")), gone)).toEqual([1]);
});
