import { chmodSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { offlineProject } from "../../src/commands/offline-project.js";
import { policySetAt } from "../../src/commands/policy-source.js";
import { changeLines, changeOf, configChangeOf, type FileChange, writeChange } from "../../src/commands/rule-files.js";
import { withKeyAt, withRuleKey } from "../../src/policy/edit-rules.js";
import { diffPolicySets } from "../../src/policy/policy-diff.js";

/** A project whose rules speak of users in entities.yaml. */
const template = fileURLToPath(new URL("../../templates/policies/on-behalf-of/", import.meta.url));
const rules = "policies/on-behalf-of.yaml";

let project: string;
beforeEach(() => {
  project = mkdtempSync(join(tmpdir(), "rule-files-"));
  cpSync(template, project, { recursive: true });
});
afterEach(() => rmSync(project, { recursive: true }));

test("a change of a rule is judged with the entities that rules speak of, and is the only difference", async () => {
  const { config, policies } = await offlineProject(project);
  const change = await changeOf(config, policies, rules, (text) => withRuleKey(text, "own-expenses", "shadow", true));
  expect(change.difference).toEqual({
    widened: false,
    changes: [expect.stringMatching(/own-expenses/), expect.anything()],
  });
  const wrong = changeOf(config, policies, rules, (text) => text.replace("rules:\n", "rules: [}\n"));
  await expect(wrong).rejects.toThrow(expect.objectContaining({ code: "policy-invalid" }));
  const outside = changeOf(config, policies, "../entities.yaml", (text) => text);
  await expect(outside).rejects.toThrow(expect.objectContaining({ code: "policy-edit" }));
});

test("so is another folder of rules", async () => {
  const { config, policies } = await offlineProject(project);
  const same = await policySetAt(join(project, "policies"), config, policies.names);
  expect(diffPolicySets(same, policies)).toEqual({ widened: false, changes: [] });
});

test("a change of agentid.yaml says what it widens, keeps who may read the file, and must load", async () => {
  const { config } = await offlineProject(project);
  const path = join(project, "agentid.yaml");
  chmodSync(path, 0o600);
  const at = ["identities", "agents/assistant"];
  const change = configChangeOf(config, (text) => withKeyAt(text, at, "shadow", true));
  expect(change.difference).toMatchObject({
    widened: true,
    changes: [expect.stringContaining("agents/assistant.shadow")],
  });
  writeChange(change);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const changed = await offlineProject(project);
  expect(changed.policies.names.shadowed).toEqual(["agents/assistant"]);
  const back = configChangeOf(changed.config, (text) => withKeyAt(text, at, "shadow", undefined));
  expect(back.difference.widened).toBe(false);
  expect(back.after).toBe(readFileSync(join(template, "agentid.yaml"), "utf8"));
  expect(() => configChangeOf(config, (text) => withKeyAt(text, at, "shadow", "perhaps"))).toThrow(
    expect.objectContaining({ code: "config-invalid" }),
  );
});

function shownChange(before: string, after: string): FileChange {
  const path = join(project, "payments.yaml");
  if (before !== "") writeFileSync(path, before);
  return { file: "policies/payments.yaml", path, before, after, difference: { widened: true, changes: ["+ allow a"] } };
}

test("a change is written over what it was shown of, and over nothing else", () => {
  const change = shownChange("rules: []\n", "rules:\n  - name: new\n");
  writeFileSync(change.path, "rules: [] # somebody's\n");
  expect(() => writeChange(change)).toThrow(expect.objectContaining({ code: "policy-edit" }));
  expect(readFileSync(change.path, "utf8")).toBe("rules: [] # somebody's\n");
  writeFileSync(change.path, change.before);
  writeChange(change);
  expect(readFileSync(change.path, "utf8")).toBe(change.after);
  expect(readdirSync(project).filter((name) => /new|payments/.test(name))).toEqual(["payments.yaml"]);
});

test("a file that came meanwhile is not written over", () => {
  const change = shownChange("", "rules:\n  - name: new\n");
  writeFileSync(change.path, "rules: []\n");
  expect(() => writeChange(change)).toThrow(expect.objectContaining({ code: "policy-edit" }));
  rmSync(change.path);
  writeChange(change);
  expect(readFileSync(change.path, "utf8")).toBe(change.after);
});

test("what is shown moves nothing in the terminal", () => {
  expect(changeLines(shownChange("a: 1\n", "a: x\u202ey\u001b[2K\n"))).toEqual([
    "policies/payments.yaml:1",
    "- a: 1",
    "+ a: x\\u202ey\\u001b[2K",
    "WIDENS",
    "  + allow a",
  ]);
});
