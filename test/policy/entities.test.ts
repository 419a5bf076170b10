import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { overlaid, readEntities } from "../../src/policy/entities.js";
import { diffPolicySets } from "../../src/policy/policy-diff.js";
import { loadPolicySet, type PolicySet, policySetOf } from "../../src/policy/policy-set.js";
import { problemLine } from "../../src/policy/yaml-file.js";
import { shop } from "./shop.js";

const PEOPLE = `entities:
  - { type: user, id: alice, properties: { department: finance } }
  - { type: user, id: bob }
  - { type: record, id: record-1, properties: { status: active } }
`;
const lines = (text: string) => readEntities("entities.yaml", text).problems.map(problemLine);
const setWith = (text: string | undefined): PolicySet => {
  const { set, problems } = policySetOf([], shop, text);
  if (set === undefined) throw new Error(problems.map(problemLine).join("\n"));
  return set;
};

test("users, records and groups by type and id, in the order of the file", () => {
  const { entities, problems } = readEntities("entities.yaml", PEOPLE);
  expect(problems).toEqual([]);
  expect(entities.types).toEqual(["record", "user"]);
  expect(entities.ofType("user").map(({ id }) => id)).toEqual(["alice", "bob"]);
  expect(entities.get("user", "alice")?.properties).toEqual({ department: "finance" });
  expect(entities.get("user", "record-1")).toBeUndefined();
  expect(entities.ofType("constructor")).toEqual([]);
});

test("what is wrong in entities.yaml is said with its place, and such a set is not applied", () => {
  expect(lines("entities:\n  - { type: user, id: a }\n  - { type: user, id: a }\n")).toEqual([
    "entities.yaml:3:23: user a is there already",
  ]);
  expect(lines("entities:\n  - { type: user, id: a, propertys: {} }\n")).toEqual([
    "entities.yaml:2:26: unknown key propertys (did you mean properties?)",
  ]);
  expect(lines("entities:\n  - { type: spiffe, id: a }\n")).toEqual([
    "entities.yaml:2:13: spiffe is a type of agentid.yaml: identities and services are there",
  ]);
  expect(lines("entities: [{ type: user }]")[0]).toContain("entities.0.id");
  expect(lines("entities:\n  - { type: user, id: a\\u0007 }\n")).toEqual([]);
  expect(lines('entities:\n  - { type: user, id: "a\\u0007" }\n')[0]).toContain("control characters");
  expect(policySetOf([], shop, "entities: [").set).toBeUndefined();
});

test("the digest of the set and its differences follow the entities; any of them counts as widening", () => {
  const before = setWith(PEOPLE);
  expect(setWith(PEOPLE).digest).toBe(before.digest);
  expect(setWith(undefined).digest).not.toBe(before.digest);
  expect(diffPolicySets(before, setWith(`# people\n${PEOPLE}`))).toEqual({ widened: false, changes: [] });
  const after = setWith(PEOPLE.replace("finance", "sales").replace("id: bob", "id: carol"));
  expect(diffPolicySets(before, after)).toEqual({
    widened: true,
    changes: ["- entities user bob", "~ entities user alice", "+ entities user carol"],
  });
});

test("loaded from beside agentid.yaml; a file that everybody may write is refused", async () => {
  const folder = mkdtempSync(join(tmpdir(), "entities-"));
  try {
    const file = join(folder, "entities.yaml");
    expect((await loadPolicySet(join(folder, "policies"), shop, file)).set?.entities.types).toEqual([]);
    writeFileSync(file, PEOPLE, { mode: 0o600 });
    expect((await loadPolicySet(join(folder, "policies"), shop, file)).set?.entities.types).toEqual(["record", "user"]);
    writeFileSync(file, "");
    chmodSync(file, 0o666);
    const { set, problems } = await loadPolicySet(join(folder, "policies"), shop, file);
    expect(set).toBeUndefined();
    expect(problems.map(({ code }) => code)).toContain("policy-file-unreadable");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("what a request says of an entity lies over what the file says, key by key", () => {
  const entity = { type: "record", id: "r", properties: { status: "active", owner: "alice" } };
  expect(overlaid(entity, { status: "archived" })).toEqual({ status: "archived", owner: "alice" });
  expect(overlaid(entity, undefined)).toBe(entity.properties);
  expect(overlaid(undefined, undefined)).toEqual({});
});
