import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { loadPolicySet } from "../../src/policy/policy-set.js";
import { PAYMENTS_YAML, shop } from "./shop.js";

let project: string;
let policies: string;
beforeEach(() => {
  project = mkdtempSync(join(tmpdir(), "agentid-policies-"));
  policies = join(project, "policies");
});
afterEach(() => rmSync(project, { recursive: true, force: true }));

const write = (name: string, text: string | Uint8Array) => {
  mkdirSync(join(policies, name, ".."), { recursive: true });
  writeFileSync(join(policies, name), text);
};
const rule = (name: string) => `rules: [{ name: ${name}, deny: { to: payments } }]`;

test("a missing and an empty folder are sets that deny everything, with a warning", async () => {
  for (const make of [() => {}, () => mkdirSync(policies)]) {
    make();
    const { set, problems } = await loadPolicySet(policies, shop);
    expect(set).toMatchObject({ rules: [], files: 0 });
    expect(problems).toMatchObject([{ severity: "warning", code: "policy-empty", file: "policies", line: 0 }]);
  }
});

test("every yaml file counts, also in subfolders; fixtures, dotfiles and other files do not", async () => {
  write("payments.yaml", PAYMENTS_YAML);
  write("deep/down/more.yml", rule("deep"));
  write("payments.test.yaml", "tests: []");
  write(".swap.yaml", "not: rules");
  write("README.md", "not rules");
  const { set, problems } = await loadPolicySet(policies, shop);
  expect(problems).toEqual([]);
  expect(set?.files).toBe(2);
  expect(set?.rules.map((found) => found.at)).toEqual([
    "policies/payments.yaml:2",
    "policies/deep/down/more.yml:1",
    "policies/payments.yaml:10",
    "policies/payments.yaml:5",
  ]);
});

test("the digest is of the names and bytes of the files, whatever order they were made in", async () => {
  write("a.yaml", rule("a"));
  write("b.yaml", rule("b"));
  const first = (await loadPolicySet(policies, shop)).set?.digest;
  rmSync(policies, { recursive: true });
  write("b.yaml", rule("b"));
  write("a.yaml", rule("a"));
  expect((await loadPolicySet(policies, shop)).set?.digest).toBe(first);
  write("b.yaml", `${rule("b")}\n`);
  const changed = (await loadPolicySet(policies, shop)).set?.digest;
  expect(changed).not.toBe(first);
  rmSync(join(policies, "b.yaml"));
  write("c.yaml", `${rule("b")}\n`);
  expect((await loadPolicySet(policies, shop)).set?.digest).not.toBe(changed);
});

test("what cannot be read is an error, never a rule less", async () => {
  write("a.yaml", rule("a"));
  expect((await loadPolicySet(policies, shop)).set).toBeDefined();
  const cases: (() => void)[] = [
    () => mkdirSync(join(policies, "folder.yaml")),
    () => symlinkSync("nowhere", join(policies, "gone.yaml")),
    () => write("big.yaml", `# ${"x".repeat(1024 * 1024)}`),
    () => write("latin1.yaml", Buffer.from("rules: [] # \xe9", "latin1")),
    () => write("broken.yaml", "rules: ["),
  ];
  if (process.getuid?.() !== 0) {
    cases.push(() => {
      write("secret.yaml", rule("s"));
      chmodSync(join(policies, "secret.yaml"), 0);
    });
  }
  for (const make of cases) {
    make();
    const { set, problems } = await loadPolicySet(policies, shop);
    expect(set, make.toString()).toBeUndefined();
    expect(problems.length).toBeGreaterThan(0);
    rmSync(policies, { recursive: true });
    write("a.yaml", rule("a"));
  }
});
