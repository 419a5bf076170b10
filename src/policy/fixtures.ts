import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { codeOf, messageOf } from "../coded-error.js";
import { type JunitCase, junitXml } from "../control-api/junit.js";
import type { Clock } from "../platform/clock.js";
import type { Decision, DecisionPoint } from "./access-request.js";
import { createDecisionPoint } from "./decision-point.js";
import { type Expected, type FixtureTest, readFixtureFile } from "./fixture-file.js";
import { isFixtureFile, type PolicySet } from "./policy-set.js";
import { type PolicyProblem, YamlFile } from "./yaml-file.js";

export interface PolicyTestReport {
  readonly tests: readonly PolicyTest[];
  readonly passed: number;
  readonly failed: number;
  /** What is wrong with fixture files; with any error the run has failed whatever `failed` says. */
  readonly problems: readonly PolicyProblem[];
  /** Rules that decided no expectation. */
  readonly untested: readonly string[];
}

interface PolicyTest {
  /** `policies/payments.test.yaml:2`. */
  readonly at: string;
  readonly name: string;
  readonly expectations: readonly PolicyTestExpectation[];
}

interface PolicyTestExpectation {
  readonly at: string;
  /** `agents/billing payments/issue_refund {"amount":900}`. */
  readonly call: string;
  readonly passed: boolean;
  /** What was expected and what was decided, with its reason; empty when it passed. */
  readonly difference: string;
  readonly decision: Decision;
}

/** Makes the decision point that a test asks: a new one for each, so that what one test used up no other one misses. */
export type DecisionPointForTest = (clock: Clock) => DecisionPoint;

/**
 * Runs every `*.test.yaml` below `directory` against `set`, in process, without ids or record, each test on a clock that stands. Never throws
 * for what is in the folder.
 */
export async function runPolicyTests(
  directory: string,
  set: PolicySet,
  newDecisionPoint: DecisionPointForTest = (clock) =>
    createDecisionPoint(set, { clock, random: (size) => new Uint8Array(size) }),
): Promise<PolicyTestReport> {
  const problems: PolicyProblem[] = [];
  const tests: PolicyTest[] = [];
  for (const name of await fixtureFilesIn(directory)) {
    const file = `${basename(directory)}/${name}`;
    const yaml = await readFixtures(file, join(directory, name), problems);
    if (yaml === undefined) continue;
    for (const test of readFixtureFile(yaml, set.names)) tests.push(await runTest(test, newDecisionPoint));
    problems.push(...yaml.problems);
  }
  const all = tests.flatMap((test) => test.expectations);
  const passed = all.filter((expected) => expected.passed).length;
  const decided = new Set(all.flatMap(({ decision }) => [decision.rule, ...shadowing(decision)]));
  const untested = set.rules.map((rule) => rule.name).filter((name) => !decided.has(name));
  return { tests, passed, failed: all.length - passed, problems, untested };
}

/** As JUnit XML: a case for each expectation, and one for each problem of a file. */
export function policyTestJunit({ tests, problems }: PolicyTestReport): string {
  const cases: readonly JunitCase[] = [
    ...tests.flatMap(({ name, expectations }) =>
      expectations.map(({ at, call, passed, difference }) => ({
        name: call,
        classname: name,
        source: at,
        ...(!passed && { failure: difference }),
      })),
    ),
    ...problems
      .filter(({ severity }) => severity === "error")
      .map(({ file, line, message }) => ({ name: `${file}:${line}`, classname: "fixtures", failure: message })),
  ];
  return junitXml("agentid policy test", cases);
}

async function runTest(test: FixtureTest, newDecisionPoint: DecisionPointForTest): Promise<PolicyTest> {
  let time = test.time;
  const decisions = newDecisionPoint({ now: () => time, after: () => () => {} });
  const expectations: PolicyTestExpectation[] = [];
  for (const expected of test.expected) {
    time += expected.afterMs;
    expectations.push(await ask(decisions, expected));
  }
  return { at: test.at, name: test.name, expectations };
}

/** Asks until an answer is not the one expected, at most as often as it says. */
async function ask(decisions: DecisionPoint, expected: Expected): Promise<PolicyTestExpectation> {
  const { at, call, request, times } = expected;
  for (let asked = 1; ; asked += 1) {
    const decision = await decisions.decide(request);
    const difference = differenceFrom(expected, decision);
    if (difference === "" && asked < times) continue;
    const which = times > 1 && difference !== "" ? `call ${asked} of ${times}: ` : "";
    return { at, call, passed: difference === "", difference: which + difference, decision };
  }
}

function differenceFrom(expected: Expected, decision: Decision): string {
  const word = decision.allowed ? "ALLOW" : "DENY";
  if (decision.allowed !== expected.allow) {
    return `expected ${expected.allow ? "ALLOW" : "DENY"}, got ${word}: ${decision.reason}`;
  }
  if (expected.rule !== undefined && expected.rule !== decision.rule) {
    return `expected rule ${expected.rule}, got ${word} by ${decision.rule}: ${decision.reason}`;
  }
  const obliged = decision.obligations.map(({ type }) => type);
  return (
    listDifference("obligations", expected.obligations, obliged) ||
    listDifference("shadow", expected.shadow, shadowing(decision))
  );
}

function listDifference(what: string, expected: readonly string[] | undefined, decided: readonly string[]): string {
  if (expected === undefined) return "";
  const [wanted, got] = [expected, decided].map((names) => names.toSorted().join(", "));
  return wanted === got ? "" : `expected ${what} [${wanted}], got [${got}]`;
}

/** Rules in shadow that would change the answer. */
function shadowing({ shadow = [] }: Decision): readonly string[] {
  return shadow.filter(({ differs }) => differs).map(({ rule }) => rule);
}

async function readFixtures(file: string, path: string, problems: PolicyProblem[]): Promise<YamlFile | undefined> {
  try {
    return new YamlFile(file, await readFile(path, "utf8"));
  } catch (thrown) {
    const place = { file, line: 0, column: 0, hint: undefined };
    problems.push({ severity: "error", code: "policy-file-unreadable", message: messageOf(thrown), ...place });
    return undefined;
  }
}

async function fixtureFilesIn(directory: string): Promise<readonly string[]> {
  try {
    return (await readdir(directory, { recursive: true })).filter(isFixtureFile).sort();
  } catch (thrown) {
    if (codeOf(thrown) === "ENOENT") return [];
    throw thrown;
  }
}
