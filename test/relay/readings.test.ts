import fc from "fast-check";
import { expect, it } from "vitest";
import { Refusal } from "../../src/http/refusal.js";
import { parseStrictJson } from "../../src/http/strict-json.js";
import { parseRequestTarget } from "../../src/relay/request-target.js";
import { runs } from "../properties.js";

/** Property: what the relay accepts has one reading. */

const piece = fc.constantFrom(
  "/",
  "//",
  ".",
  "..",
  "%2e",
  "%2f",
  "%5c",
  "%25",
  "%41",
  "%C3%A9",
  "%c0",
  ";",
  "?",
  "&",
  "a=1",
  "b",
  "é",
  "+",
  "#",
  "\\",
  "@",
  ":",
  "~",
  "%",
  "%zz",
  "x",
);

it("an accepted target means the same to a WHATWG URL parser, to a segment-wise router and to us", () => {
  let accepted = 0;
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
      const raw = `/${pieces.join("")}`;
      let target: ReturnType<typeof parseRequestTarget>;
      try {
        target = parseRequestTarget(raw);
      } catch (error) {
        expect(error).toBeInstanceOf(Refusal);
        return;
      }
      accepted += 1;
      const url = new URL(raw, "http://upstream.example");
      expect(url.host).toBe("upstream.example");
      expect(decodeURIComponent(url.pathname)).toBe(target.path);
      expect(raw.split("?")[0]?.split("/").map(decodeURIComponent).join("/")).toBe(target.path);
      expect(Object.fromEntries(url.searchParams)).toEqual({ ...target.query });
      // Decoding once more changes nothing that a router would look at.
      expect(target.path.split("/")).not.toContain("..");
    }),
    { numRuns: runs(5_000) },
  );
  expect(accepted).toBeGreaterThan(100);
});

it("accepted JSON is what JSON.parse makes of it, and survives writing anew", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
      const text = JSON.stringify(value);
      let parsed: unknown;
      try {
        parsed = parseStrictJson(Buffer.from(text));
      } catch (error) {
        expect(error).toBeInstanceOf(Refusal);
        return;
      }
      expect(JSON.stringify(parsed)).toBe(JSON.stringify(JSON.parse(text)));
    }),
    { numRuns: runs(2_000) },
  );
});

it("text that JSON.parse refuses is refused", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.constantFrom("{", "}", "[", "]", '"a"', ":", ",", "1", "-", "01", ".5", "true", "nul", "\\", '"', " "),
        { maxLength: 8 },
      ),
      (parts) => {
        const text = parts.join("");
        let standard = true;
        try {
          JSON.parse(text);
        } catch {
          standard = false;
        }
        let ours = true;
        try {
          parseStrictJson(Buffer.from(text));
        } catch {
          ours = false;
        }
        if (ours) expect(standard).toBe(true);
      },
    ),
    { numRuns: runs(5_000) },
  );
});

it("what is parsed has the members that were sent and no others, and nobody can give it any", () => {
  const parsed = parseStrictJson(Buffer.from('{"a":{"b":1}}')) as { a: object };
  for (const object of [parsed, parsed.a]) {
    for (const name of ["constructor", "toString", "hasOwnProperty", "__proto__"]) expect(name in object).toBe(false);
    expect(() => Object.defineProperty(Object.getPrototypeOf(object), "a", { value: 1 })).toThrow(TypeError);
  }
  expect(parsed).toEqual({ a: { b: 1 } });
});
