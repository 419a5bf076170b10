import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { changeLines, type RuleFileChange, writeChange } from "../../src/commands/rule-files.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "rule-files-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

function changeOf(before: string, after: string): RuleFileChange {
  const path = join(folder, "payments.yaml");
  if (before !== "") writeFileSync(path, before);
  return { file: "policies/payments.yaml", path, before, after, difference: { widened: true, changes: ["+ allow a"] } };
}

test("a change is written over what it was shown of, and over nothing else", () => {
  const change = changeOf("rules: []\n", "rules:\n  - name: new\n");
  writeFileSync(change.path, "rules: [] # somebody's\n");
  expect(() => writeChange(change)).toThrow(expect.objectContaining({ code: "policy-edit" }));
  expect(readFileSync(change.path, "utf8")).toBe("rules: [] # somebody's\n");
  writeFileSync(change.path, change.before);
  writeChange(change);
  expect(readFileSync(change.path, "utf8")).toBe(change.after);
  expect(readdirSync(folder)).toEqual(["payments.yaml"]);
});

test("a file that came meanwhile is not written over", () => {
  const change = changeOf("", "rules:\n  - name: new\n");
  writeFileSync(change.path, "rules: []\n");
  expect(() => writeChange(change)).toThrow(expect.objectContaining({ code: "policy-edit" }));
  rmSync(change.path);
  writeChange(change);
  expect(readFileSync(change.path, "utf8")).toBe(change.after);
});

test("what is shown moves nothing in the terminal", () => {
  expect(changeLines(changeOf("a: 1\n", "a: x\u202ey\u001b[2K\n"))).toEqual([
    "policies/payments.yaml:1",
    "- a: 1",
    "+ a: x\\u202ey\\u001b[2K",
    "WIDENS",
    "  + allow a",
  ]);
});
