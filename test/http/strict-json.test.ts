import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
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
  [`[1,${" ".repeat(4_097)}2]`, "json-malformed"],
  [`${"[".repeat(60)}1${`${"\n".repeat(4_096)}]`.repeat(59)}x]`, "json-malformed"],
])("what is long and wrong is refused at once and in pieces alike: %#", (text, code) => {
  expect(outcomeOf(text)).toBe(code);
  expect(outcomeOf(text, inPiecesOf(1_000))).toBe(code);
});

const listOf = (element: (index: number) => string) => (count: number) =>
  `[${Array.from({ length: count }, (_, index) => element(index)).join(",")}]`;

/** About what each takes of memory, and of the whole text. */
const MOST_BYTES = 2 * 1024 * 1024 - 48;
const [SHAPES, OF_SHAPE, OF_DICTIONARY] = [256, 32 + 8 + 12, 32 + 160 + 64 + 12];

test.each([
  ["numbers", () => "1", MOST_BYTES / 12],
  ["fractions", () => "-0.5", MOST_BYTES / 12],
  ["texts", () => '"a"', MOST_BYTES / (32 + 12)],
  ["lists", () => "[]", MOST_BYTES / (48 + 12)],
  ["objects", () => "{}", MOST_BYTES / (32 + 12)],
  ["rows of a table", () => '{"a":1,"b":"2","c":null}', MOST_BYTES / (32 + 3 * 8 + 32 + 12)],
  [
    "objects of unlike keys",
    (index: number) => `{"k${index}":1}`,
    SHAPES + (MOST_BYTES - SHAPES * OF_SHAPE) / OF_DICTIONARY,
  ],
  ["objects of numbered keys", () => '{"300":1}', MOST_BYTES / (32 + 160 + 160 + 64 + 12)],
] as const)("a long text holds so many %s and no more", async (_, element, most) => {
  const read = (count: number) =>
    parseStrictJsonInTurns(BodyBytes.of(Buffer.from(listOf(element)(count))), async () => undefined);
  const values = await read(Math.floor(most));
  expect(values).toHaveLength(Math.floor(most));
  await expect(read(Math.floor(most) + 1)).rejects.toMatchObject({ code: "json-values", status: 400 });
});

test("white space in a row has its bound, at once and in pieces", () => {
  const text = `${" ".repeat(4_096)}[1,${"\t".repeat(4_096)}{${"\n".repeat(4_096)}"a"${"\r".repeat(4_096)}:${" ".repeat(4_096)}2${" ".repeat(4_096)}}]`;
  expect(outcomeOf(text)).toBe('[1,{"a":2}]');
  expect(outcomeOf(text, inPiecesOf(1_000))).toBe('[1,{"a":2}]');
});

test("a body is the same text however it comes in pieces, and what is no UTF-8 is refused", async () => {
  const text = JSON.stringify({
    a: "aé\u20ac\u{1f600}".repeat(9_000),
    b: ["x".repeat(40_000)],
    c: { d: "é".repeat(20) },
  });
  const bytes = Buffer.from(text);
  const read = (pieces: readonly Buffer[]) => {
    const body = new BodyBytes();
    for (const piece of pieces) body.add(piece);
    expect(body.length).toBe(pieces.reduce((size, { length }) => size + length, 0));
    return parseStrictJsonInTurns(body, async () => undefined);
  };
  const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1_000, max: 50_000 })), {
    minLength: 1,
    maxLength: 20,
  });
  await fc.assert(
    fc.asyncProperty(sizes, async (lengths) => {
      const pieces: Buffer[] = [];
      for (let at = 0; at < bytes.length; ) {
        const length = lengths[pieces.length % lengths.length] ?? 1;
        pieces.push(bytes.subarray(at, at + length));
        at += length;
      }
      expect(await read(pieces)).toEqual(JSON.parse(text));
    }),
    { numRuns: runs(20) },
  );
  for (const wrong of [[0xc3], [0xff], [0xe2, 0x82], [0xf0, 0x9f, 0x98]]) {
    await expect(read([bytes.subarray(0, -1), Buffer.from([...wrong, 0x7d])])).rejects.toMatchObject({
      code: "json-utf8",
    });
    await expect(read([Buffer.from(`["${"a".repeat(99_000)}`), Buffer.from(wrong)])).rejects.toMatchObject({
      code: "json-utf8",
    });
  }
  await expect(read([Buffer.from([0xef, 0xbb]), Buffer.from([0xbf]), bytes])).rejects.toMatchObject({
    code: "json-bom",
  });
});

test("property: many objects, alike and unlike, are what JSON.parse makes of them, at once and in pieces", () => {
  const key = fc.oneof(
    fc.constantFrom("a", "b", "A", "\u212a", "k", "1", "01", "10", "4294967294", "-1"),
    fc.integer({ min: 0, max: 400 }).map((index) => `k${index}`),
    fc.integer({ min: 0, max: 2_000 }).map(String),
  );
  const { object } = fc.letrec<{ object: string; value: string }>((tie) => ({
    value: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      fc.constantFrom("1", "-0.5", '"t"', "null", "[1,2.5]", '[0.5,"x"]', "[{}]"),
      tie("object"),
    ),
    object: fc
      .array(fc.tuple(key, tie("value")), { maxLength: 4 })
      .map((members) => `{${members.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(",")}}`),
  }));
  const many = fc.tuple(fc.array(object, { minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 12 }));
  let [read, refused] = [0, 0];
  fc.assert(
    fc.property(many, fc.integer({ min: 1, max: 2_000 }), ([objects, times], bytes) => {
      const text = `[${Array.from({ length: times }, () => objects.join(",")).join(",")}]`;
      const outcome = outcomeOf(text);
      expect(outcomeOf(text, inPiecesOf(bytes))).toBe(outcome);
      // Alone, each object is read as the first of its text.
      const alone = objects.map((one) => outcomeOf(one));
      const cause = alone.find((one) => one === "json-duplicate-key" || one === "json-ambiguous-key");
      if (cause === undefined) {
        read += 1;
        expect(outcome).toBe(JSON.stringify(JSON.parse(text)));
      } else {
        refused += 1;
        expect(outcome).toBe(cause);
      }
    }),
    { numRuns: runs(200) },
  );
  expect(read).toBeGreaterThan(20);
  expect(refused).toBeGreaterThan(20);
});

test("objects of numbered keys take no more of memory than others, in a long text and in a short one", () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const kept: unknown[] = [];
  const bytesOfEach = (read: (text: string) => Json, count: number, times: number): number => {
    const text = listOf(() => '{"300":1}')(count);
    collect();
    const before = process.memoryUsage().heapUsed;
    for (let time = 0; time < times; time += 1) kept.push(read(text));
    collect();
    return (process.memoryUsage().heapUsed - before) / (count * times);
  };
  // As an array of 466 elements each would take 3.7 KB.
  expect(bytesOfEach(inPiecesOf(10_000), 4_000, 1)).toBeLessThan(1_000);
  expect(bytesOfEach(atOnce, 1_500, 4)).toBeLessThan(1_000);
  expect(kept).toHaveLength(5);
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
