import fc from "fast-check";
import { expect, test } from "vitest";
import { canonicalFields, chainedLine, GENESIS, MAX_ENTRY_BYTES } from "../../src/audit/chain.js";
import { LineBuffer } from "../../src/audit/line-buffer.js";

const TIME = "2025-01-15T12:00:00.000Z";
const fieldsOf = (text: string) => canonicalFields("call", { text });
/** The lines as they are made one by one, each chained to the one before. */
const linesOf = (texts: readonly string[]) => {
  let prev = GENESIS;
  return texts.map((text, sequence) => {
    const { line, hash } = chainedLine(sequence, TIME, "call", fieldsOf(text), prev);
    prev = hash;
    return { line, hash };
  });
};
const added = (buffer: LineBuffer, texts: readonly string[]) => {
  let prev = GENESIS;
  return texts.map((text, sequence) => {
    prev = buffer.add(sequence, TIME, "call", fieldsOf(text), prev);
    return prev;
  });
};
const textOf = (buffer: LineBuffer) => Buffer.from(buffer.bytes).toString("utf8");

test("what it holds are the lines of the chain, as bytes", () => {
  const buffer = new LineBuffer();
  fc.assert(
    fc.property(fc.array(fc.string({ unit: "binary", maxLength: 300 }), { minLength: 1, maxLength: 6 }), (texts) => {
      buffer.clear();
      const lines = linesOf(texts);
      expect(added(buffer, texts)).toEqual(lines.map(({ hash }) => hash));
      expect(textOf(buffer)).toBe(lines.map(({ line }) => `${line}\n`).join(""));
    }),
  );
});

test("it grows for what is waiting, and is small again when that is written", () => {
  const buffer = new LineBuffer();
  const texts = Array.from({ length: 9 }, (_, index) => String(index).repeat(30_000));
  added(buffer, texts);
  expect(textOf(buffer)).toBe(
    linesOf(texts)
      .map(({ line }) => `${line}\n`)
      .join(""),
  );
  expect(buffer.bytes.buffer.byteLength).toBeGreaterThan(270_000);
  buffer.clear();
  expect(buffer.bytes).toHaveLength(0);
  expect(buffer.bytes.buffer.byteLength).toBe(65_536);
});

test.each([
  ["of one byte a character", "x", 1],
  ["of three", "€", 3],
])("a line %s is as long as an entry may be, and no longer", (_, character, size) => {
  const buffer = new LineBuffer();
  const before = buffer.add(0, TIME, "call", fieldsOf("before"), GENESIS);
  const held = textOf(buffer);
  const others = chainedLine(1, TIME, "call", fieldsOf(""), before).line.length;
  const most = Math.floor((MAX_ENTRY_BYTES - others) / size);
  const tooLong = fieldsOf(character.repeat(most + 1));
  expect(() => buffer.add(1, TIME, "call", tooLong, before)).toThrow(
    expect.objectContaining({ code: "audit-entry-invalid" }),
  );
  expect(() => chainedLine(1, TIME, "call", tooLong, before)).toThrow(
    expect.objectContaining({ code: "audit-entry-invalid" }),
  );
  expect(textOf(buffer)).toBe(held);
  const longest = fieldsOf(character.repeat(most));
  const { line, hash } = chainedLine(1, TIME, "call", longest, before);
  expect(buffer.add(1, TIME, "call", longest, before)).toBe(hash);
  expect(textOf(buffer)).toBe(`${held}${line}\n`);
});
