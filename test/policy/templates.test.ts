import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { offlineProject } from "../../src/commands/offline-project.js";
import { type PolicyTestReport, runPolicyTests } from "../../src/policy/fixtures.js";
import { ruleFindings } from "../../src/policy/rule-findings.js";

const templates = fileURLToPath(new URL("../../templates/policies/", import.meta.url));
const names = readdirSync(templates).sort();
const page = readFileSync(new URL("../../docs/policies.md", import.meta.url), "utf8");

/** A fixture file as plain values: what is changed here is what a person would change in it. */
interface Fixtures {
  readonly tests: FixtureText[];
}

interface FixtureText {
  as?: string | string[];
  calls?: string[];
  allowed?: Record<string, string | string[]>;
  expect?: { allow: boolean; rule?: string; shadow?: string[]; obligations?: string[] }[];
}

test("there are a dozen, and docs/policies.md lists them all", () => {
  expect(names.length).toBeGreaterThanOrEqual(12);
  expect(names.filter((name) => !page.includes(`(../templates/policies/${name}/policies/${name}.yaml)`))).toEqual([]);
});

describe.each(names)("%s", (name) => {
  const project = join(templates, name);
  const policies = join(project, "policies");

  test("loads without a warning, says nothing in vain, and says what it does not protect from", async () => {
    const { policies: set, warnings } = await offlineProject(project);
    expect(warnings).toEqual([]);
    expect(ruleFindings(set)).toEqual({ findings: [], all: true });
    expect(readdirSync(policies).sort()).toEqual([`${name}.test.yaml`, `${name}.yaml`]);
    const text = readFileSync(join(policies, `${name}.yaml`), "utf8");
    expect(text).toContain("\n# Change: ");
    expect(text).toContain("\n# Does not protect from: ");
  });

  test("all of its tests pass, and each rule decides one", async () => {
    const { policies: set } = await offlineProject(project);
    const report = await runPolicyTests(policies, set);
    expect(failures(report)).toEqual([]);
    expect(report).toMatchObject({ failed: 0, problems: [], untested: [] });
    // Of what is only ever allowed, or only ever denied, nobody knows that it is decided.
    const verdicts = report.tests.flatMap(({ expectations }) => expectations.map(({ decision }) => decision.allowed));
    expect(new Set(verdicts)).toEqual(new Set([true, false]));
  });

  test("each of its expectations, turned round, fails", async () => {
    const { policies: set } = await offlineProject(project);
    const fixtures: Fixtures = parse(readFileSync(join(policies, `${name}.test.yaml`), "utf8"));
    const folder = mkdtempSync(join(tmpdir(), "fixtures-"));
    try {
      const file = join(folder, `${name}.test.yaml`);
      const passedAllTheSame: string[] = [];
      const changes = turnedRound(fixtures);
      for (const { test, expectations, changed } of changes) {
        writeFileSync(file, stringify(changed));
        const { tests, problems } = await runPolicyTests(folder, set);
        expect(problems).toEqual([]);
        for (const index of expectations) {
          const outcome = tests[test]?.expectations[index];
          if (outcome?.passed !== false) passedAllTheSame.push(`${fixtures.tests[test]?.as}: ${outcome?.call}`);
        }
      }
      expect(passedAllTheSame).toEqual([]);
      expect(changes.length).toBeGreaterThanOrEqual(4);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

interface TurnedRound {
  readonly changed: Fixtures;
  /** Index of the test, and those of the expectations in it that must fail. */
  readonly test: number;
  readonly expectations: readonly number[];
}

/** The file once for each answer in it, with that answer turned round; the rule is left out, so that the answer alone can fail. */
function turnedRound(fixtures: Fixtures): readonly TurnedRound[] {
  return fixtures.tests.flatMap((each, test) => {
    const callers = each.as === undefined ? ["(none)"] : [each.as].flat();
    const { calls = [], expect: expected = [] } = each;
    const put = (changed: FixtureText): Fixtures => ({ tests: fixtures.tests.with(test, changed) });
    const cells = callers.flatMap((caller, row) =>
      calls.map((call, column) => ({
        test,
        expectations: [row * calls.length + column],
        changed: put({ ...each, allowed: toggled(each.allowed, caller, call) }),
      })),
    );
    const listed = expected.map(({ allow, rule: _rule, shadow: _shadow, obligations: _obliged, ...call }, index) => ({
      test,
      expectations: callers.map((_, row) => callers.length * calls.length + row * expected.length + index),
      changed: put({ ...each, expect: expected.with(index, { ...call, allow: !allow }) }),
    }));
    return [...cells, ...listed];
  });
}

function toggled(
  allowed: Record<string, string | string[]> = {},
  caller: string,
  call: string,
): Record<string, string[]> {
  const calls = [allowed[caller] ?? []].flat();
  const changed = calls.includes(call) ? calls.filter((each) => each !== call) : [...calls, call];
  const all = Object.entries({ ...allowed, [caller]: changed });
  return Object.fromEntries(all.map(([who, what]) => [who, [what].flat()]).filter(([, what]) => what?.length !== 0));
}

function failures({ tests }: PolicyTestReport): readonly string[] {
  return tests.flatMap(({ name, expectations }) =>
    expectations.filter((each) => !each.passed).map(({ call, difference }) => `${name}: ${call}: ${difference}`),
  );
}

test("sensitive-arguments keeps the card out of reasons and values", async () => {
  const { policies: set } = await offlineProject(join(templates, "sensitive-arguments"));
  const { tests } = await runPolicyTests(join(templates, "sensitive-arguments", "policies"), set);
  const decisions = tests.flatMap(({ expectations }) => expectations.map(({ decision }) => decision));
  expect(decisions.length).toBeGreaterThanOrEqual(6);
  expect(JSON.stringify(decisions)).not.toMatch(/1234567899/);
  expect(JSON.stringify(decisions)).toContain("51 <= 50 is false");
});
