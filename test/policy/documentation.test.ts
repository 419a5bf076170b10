import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runPolicyTests } from "../../src/policy/fixtures.js";
import { problemLine } from "../../src/policy/yaml-file.js";
import { load } from "./shop.js";

test("the rules and the tests that docs/policies.md shows are what it says", async () => {
  const page = readFileSync(new URL("../../docs/policies.md", import.meta.url), "utf8");
  const [rules = "", fixtures = ""] = [...page.matchAll(/```yaml\n(.*?)```/gs)].map((match) => match[1] ?? "");
  const { set, problems } = load(rules);
  expect(problems.map(problemLine)).toEqual([]);
  expect(set?.rules.map((rule) => rule.name)).toEqual(["nobody-deletes", "small-refunds"]);
  const directory = mkdtempSync(join(tmpdir(), "policies-"));
  try {
    writeFileSync(join(directory, "page.test.yaml"), fixtures);
    if (set === undefined) throw new Error("no set");
    expect(await runPolicyTests(directory, set)).toMatchObject({ passed: 4, failed: 0, problems: [], untested: [] });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
