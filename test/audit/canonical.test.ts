import fc from "fast-check";
import { canonicalize } from "json-canonicalize";
import { expect, test } from "vitest";
import type { AuditFields } from "../../src/audit/audit-log.js";
import { canonicalFields, preparedFields } from "../../src/audit/chain.js";

/** Names that sort in another way as numbers, in UTF-16 and by code point. */
const name = fc.oneof(fc.string(), fc.constantFrom("", "1", "9", "10", "a", "A", "é", "￿", "😀", "b"));
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    fc.oneof(fc.string({ unit: "binary" }), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.integer()),
    fc.constantFrom(null, true, false, -0, 1e21, 5e-7),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(name, tie("value"), { maxKeys: 6 }),
  ),
}));

/** The same members, in the order of the record. */
function inOrder(given: unknown): unknown {
  if (Array.isArray(given)) return given.map(inOrder);
  if (typeof given !== "object" || given === null) return given;
  return Object.fromEntries(
    Object.entries(given)
      .toSorted(([one], [other]) => (one < other ? -1 : 1))
      .map(([key, member]) => [key, inOrder(member)]),
  );
}

test("fields are canonical JSON as a library of RFC 8785 has it, whatever order they come in", () => {
  fc.assert(
    fc.property(fc.dictionary(name, value, { maxKeys: 8 }), (given) => {
      const fields = given as AuditFields;
      const canonical = canonicalize(fields);
      expect(canonicalFields("call", fields)).toBe(canonical);
      expect(canonicalFields("call", inOrder(fields) as AuditFields)).toBe(canonical);
    }),
  );
});

test.each([
  { what: "not a number", fields: { a: Number.NaN } },
  { what: "infinite", fields: { a: [{ b: Number.POSITIVE_INFINITY }] } },
])("a number that is $what is no entry", ({ fields }) => {
  expect(canonicalFields("call", { a: 1 })).toBe('{"a":1}');
  expect(() => canonicalFields("call", fields)).toThrow(expect.objectContaining({ code: "audit-entry-invalid" }));
});

test("a member without a value is none", () => {
  expect(canonicalFields("call", { a: 1, b: undefined, c: [undefined] } as never)).toBe('{"a":1,"c":[null]}');
});

test("prepared fields are what the same fields are when they are written one by one", () => {
  fc.assert(
    fc.property(
      fc.dictionary(name, value, { maxKeys: 8 }),
      name,
      fc.stringMatching(/^[\w-]{1,20}$/),
      (given, member, text) => {
        const fields = given as AuditFields;
        const written = preparedFields("decision", fields, member)(text);
        expect(written.canonical).toBe(canonicalize({ ...fields, [member]: text }));
        expect(canonicalFields("decision", written)).toBe(written.canonical);
      },
    ),
  );
});

test.each(['a"b', "a\\b", "", "a\nb", "é", '","verdict":"ALLOW'])(
  "a text that JSON writes in another way is refused: %j",
  (text) => {
    const prepared = preparedFields("decision", { verdict: "DENY" }, "decision");
    expect(prepared("plain-1").canonical).toBe('{"decision":"plain-1","verdict":"DENY"}');
    expect(() => prepared(text)).toThrow(expect.objectContaining({ code: "audit-entry-invalid" }));
  },
);
