import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runPolicyTests } from "../../src/policy/fixtures.js";
import { ruleFileSchema } from "../../src/policy/rule-file-schema.js";
import { problemLine } from "../../src/policy/yaml-file.js";
import { decisionsWith, load, loadWith, setWith, shop } from "./shop.js";

const page = readFileSync(new URL("../../docs/policies.md", import.meta.url), "utf8");
const blocks = [...page.matchAll(/```yaml\n(.*?)```/gs)].map((match) => match[1] ?? "");
const entities = blocks.find((block) => block.startsWith("entities:")) ?? "";
const names = { ...shop, labels: new Map([["agents/billing", { team: "finance" }]]) };

test("the rules and the tests that docs/policies.md shows are what it says", async () => {
  const [rules = ""] = blocks;
  const fixtures = blocks.find((block) => block.startsWith("tests:")) ?? "";
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

test("the longer tests that it shows say what it says", async () => {
  const [, fixtures = ""] = blocks.filter((block) => block.startsWith("tests:"));
  const rules = `rules:
  - { name: reads, allow: { from: agents/billing, to: payments, tools: get_invoice } }
  - { name: all, allow: { from: agents/planner, to: payments } }
  - { name: paced, allow: { from: agents/billing, to: payments, tools: list_invoices }, limit: 10 per minute }
  - { name: owner, allow: { subject: { type: user, id: alice }, action: write, resource: { type: record } } }
`;
  const directory = mkdtempSync(join(tmpdir(), "policies-"));
  try {
    writeFileSync(join(directory, "page.test.yaml"), fixtures);
    const report = await runPolicyTests(directory, setWith({ entities }, rules));
    expect(report).toMatchObject({ passed: 8, failed: 0, problems: [], untested: [] });
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("every rule that the page shows is a rule, over the entities that it shows", () => {
  const files = blocks.filter((block) => block.startsWith("rules:"));
  expect(files.length).toBeGreaterThanOrEqual(3);
  const { set, problems } = loadWith({ names, entities }, ...files);
  expect(problems.map(problemLine)).toEqual([]);
  expect(set?.rules.length).toBeGreaterThanOrEqual(8);
  const decisions = decisionsWith({ names, entities }, ...files);
  const edit = (user: string) => ({
    subject: { type: "user", id: user },
    action: { name: "write" },
    resource: { type: "record", id: "record-1" },
  });
  expect(decisions.decide(edit("alice"))).toMatchObject({ allowed: true, rule: "owners-edit" });
  expect(decisions.decide(edit("bob"))).toMatchObject({ allowed: false, rule: "owners-edit" });
});

test("the page names every key of a rule", () => {
  const rule = ruleFileSchema.shape.rules.unwrap().element;
  const scope = rule.shape.allow.unwrap();
  const keys = [rule, scope, scope.shape.subject.unwrap(), scope.shape.resource.unwrap(), scope.shape.time.unwrap()]
    .flatMap((mapping) => Object.keys(mapping.shape))
    .filter((key) => !new RegExp(`\\b${key}\\b`).test(page));
  expect(keys).toEqual([]);
});
