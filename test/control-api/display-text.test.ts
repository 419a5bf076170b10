import fc from "fast-check";
import { expect, test } from "vitest";
import { destination, displayText } from "../../src/control-api/display-text.js";

test.each([
  ["plain text stays", "issue_refund {invoice:1017} → 4,200 €", "issue_refund {invoice:1017} → 4,200 €"],
  ["other scripts and emoji stay", "Привет 你好 مرحبا 😀", "Привет 你好 مرحبا 😀"],
  ["colours", "\u001b[31mDENY\u001b[0m", "DENY"],
  ["cursor movement and erasing", "a\u001b[2J\u001b[1;1Hb\u001b[K", "ab"],
  ["8-bit CSI", "a\u009b31mb", "ab"],
  ["window title", "a\u001b]0;owned\u0007b", "ab"],
  ["hyperlink", "\u001b]8;;http://evil\u001b\\click\u001b]8;;\u001b\\", "click"],
  ["clipboard", "a\u001b]52;c;ZXZpbA==\u0007b", "ab"],
  ["8-bit OSC", "a\u009d0;x\u009cb", "ab"],
  ["device control string", "a\u001bPq#0\u001b\\b", "ab"],
  ["an unfinished OSC hides nothing", "a\u001b]0;rm -rf /", "a0;rm -rf /"],
  ["an unfinished CSI", "a\u001b[", "a"],
  ["an escape in an escape", "\u001b\u001b[31[31mx", "31mx"],
  ["charset switch", "a\u001b(0b", "ab"],
  ["reset", "a\u001bcb", "ab"],
  ["backspaces", "allow\b\b\b\b\bDENY", "allowDENY"],
  ["carriage return", "DENY\rALLOW", "DENY ALLOW"],
  ["line ends and tabs", "a\n\tb\u2028c\u0085d\u000be", "a b c d e"],
  ["NUL and DEL", "a\u0000b\u007fc", "abc"],
  ["right-to-left override", "user\u202egnp.exe\u202c", "usergnp.exe"],
  ["isolates and marks", "a\u2066b\u2069c\u200fd\u061ce", "abcde"],
  ["zero width", "ad\u200bm\u200di\u2060n\ufeff", "admin"],
  ["soft hyphen and fillers", "a\u00adb\u3164c\u115fd\u2800e", "abcde"],
  ["tags", "a\u{e0061}\u{e0062}b", "ab"],
  ["variation selectors", "a\ufe0fb\u{e0100}c", "abc"],
  ["lone surrogates", "a\ud800b\udc00c", "abc"],
  ["private use", "a\ue000b", "ab"],
  ["blanks around what cannot be seen", "\u1b00\t\u0000\tb", "\u1b00 b"],
  ["stacked marks", `a${"\u0301".repeat(50)}b`, "a\u0301\u0301\u0301b"],
])("%s", (_what, text, shown) => {
  expect(displayText(text)).toBe(shown);
});

test("what is too long ends in …, never in half a character", () => {
  expect(displayText("abcdef", 6)).toBe("abcdef");
  expect(displayText("abcdefg", 6)).toBe("abcde…");
  expect(displayText("abcd😀fg", 6)).toBe("abcd…");
  expect(displayText("abc", 1)).toBe("…");
  expect(displayText("abc", 0)).toBe("");
  expect(displayText("\u001b[".repeat(5_000_000), 10).length).toBeLessThanOrEqual(10);
});

test("nothing invisible and nothing too long comes out, whatever goes in, and a second pass changes nothing", () => {
  const piece = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.constantFrom(
      "\u001b",
      "\u001b[",
      "\u001b]",
      "\u0007",
      "\u009b",
      "\u009d",
      "\u009c",
      "\u202e",
      "31m",
      "\\",
      "\n",
      "\ud83d",
    ),
  );
  fc.assert(
    fc.property(fc.array(piece), fc.integer({ min: 0, max: 40 }), (pieces, length) => {
      const shown = displayText(pieces.join(""), length);
      expect(shown.length).toBeLessThanOrEqual(length);
      expect(shown).not.toMatch(/\p{C}|[\u2028\u2029]/u);
      expect(displayText(shown, length)).toBe(shown);
    }),
  );
});

test.each([
  ["payments", "issue_refund", "payments/issue_refund"],
  ["invoices", "/v1/items", "invoices/v1/items"],
  ["record:record-1", "record-1", "record:record-1"],
  ["record:record-1", "1", "record:record-1/1"],
])("a call of %s at %s goes to %s", (service, target, shown) => {
  expect(destination(service, target)).toBe(shown);
});
