import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { z } from "zod";
import { codeOf, messageOf } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import type { AccessRequest, Decision, DecisionPoint, SubjectProperties } from "./access-request.js";
import { httpAccessRequest, mcpAccessRequest } from "./access-request-of.js";
import { createDecisionPoint } from "./decision-point.js";
import { type LoadedEngines, NO_ENGINES } from "./engines/load-engines.js";
import { isIdentityName, nearestHint, type PolicyNames } from "./policy-names.js";
import { isFixtureFile, type PolicySet } from "./policy-set.js";
import { type PathInFile, type PolicyProblem, YamlFile } from "./yaml-file.js";

const expectation = z.strictObject({
  call: z.string().describe("`payments/get_invoice`, `GET invoices /v1/invoices`, `resources/read payments`"),
  with: z.record(z.string(), z.unknown()).optional().describe("arguments of the tool, or the query"),
  allow: z.boolean(),
  rule: z.string().optional().describe("the rule that must decide; `default` for none"),
});

/** `policies/*.test.yaml`. */
const fixtureFileSchema = z.strictObject({
  tests: z.array(
    z.strictObject({
      name: z.string().min(1),
      as: z.string().optional().describe("identity that calls; left out: a caller without one"),
      launchedBy: z.array(z.string()).optional().describe("agents that launched the caller, nearest first"),
      evidence: z.enum(["kernel", "launch", "parent", "weak", "certificate"]).optional(),
      expect: z.array(expectation).min(1),
    }),
  ),
});

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

/** Fixed, so that a run gives the same answer every time: rules about the time of day are tested at noon UTC of an ordinary Wednesday. */
const NOON: Clock = { now: () => Date.UTC(2025, 0, 15, 12), after: () => () => {} };

/**
 * Runs every `*.test.yaml` below `directory` against `set`, in process and without ids or record. Never throws for what is in the folder.
 */
export async function runPolicyTests(
  directory: string,
  set: PolicySet,
  { clock = NOON, engines = NO_ENGINES }: { readonly clock?: Clock; readonly engines?: LoadedEngines } = {},
): Promise<PolicyTestReport> {
  const decisions = createDecisionPoint(set, {
    clock,
    random: (size) => new Uint8Array(size),
    engines: engines.engines.map((engine) => engine.open({ clock })),
    rules: engines.rules,
  });
  const problems: PolicyProblem[] = [];
  const tests: PolicyTest[] = [];
  for (const name of await fixtureFilesIn(directory)) {
    const file = `${basename(directory)}/${name}`;
    const yaml = await readFixtures(file, join(directory, name), problems);
    if (yaml === undefined) continue;
    const content = yaml.parse(fixtureFileSchema);
    for (const [index, test] of (content?.tests ?? []).entries()) {
      const at: PathInFile = ["tests", index];
      const as = test.as === undefined ? undefined : callerId(test.as, [...at, "as"], yaml, set.names);
      const above = test.launchedBy?.map((each, place) =>
        callerId(each, [...at, "launchedBy", place], yaml, set.names),
      );
      const callerIs: SubjectProperties = {
        ...(test.evidence !== undefined && { evidence: test.evidence }),
        ...(above !== undefined && { launched_by: above.map((id) => id ?? "") }),
      };
      const expectations: PolicyTestExpectation[] = [];
      for (const [place, expected] of test.expect.entries()) {
        const where = [...at, "expect", place];
        const asked = requestOf(expected, as, [...where, "call"], yaml, set.names);
        if (asked === undefined) continue;
        const request = { ...asked, subject: { ...asked.subject, properties: callerIs } };
        const call = [test.as ?? "(none)", expected.call, ...(expected.with ? [JSON.stringify(expected.with)] : [])];
        const shown = { at: `${file}:${yaml.lineOf(where)}`, call: call.join(" ") };
        expectations.push({ ...shown, ...(await judge(decisions, request, expected)) });
      }
      tests.push({ at: `${file}:${yaml.lineOf(at)}`, name: test.name, expectations });
    }
    problems.push(...yaml.problems);
  }
  const all = tests.flatMap((test) => test.expectations);
  const passed = all.filter((expected) => expected.passed).length;
  const decided = new Set(all.map((expected) => expected.decision.rule));
  const untested = set.rules.map((rule) => rule.name).filter((name) => !decided.has(name));
  return { tests, passed, failed: all.length - passed, problems, untested };
}

type Expectation = z.infer<typeof expectation>;

async function judge(
  decisions: DecisionPoint,
  request: AccessRequest,
  expected: Expectation,
): Promise<Pick<PolicyTestExpectation, "passed" | "difference" | "decision">> {
  const { decision } = await decisions.explain(request);
  const word = decision.allowed ? "ALLOW" : "DENY";
  if (decision.allowed !== expected.allow) {
    const wanted = expected.allow ? "ALLOW" : "DENY";
    return { passed: false, difference: `expected ${wanted}, got ${word}: ${decision.reason}`, decision };
  }
  if (expected.rule !== undefined && expected.rule !== decision.rule) {
    const difference = `expected rule ${expected.rule}, got ${word} by ${decision.rule}: ${decision.reason}`;
    return { passed: false, difference, decision };
  }
  return { passed: true, difference: "", decision };
}

function callerId(as: string, at: PathInFile, yaml: YamlFile, names: PolicyNames): string | undefined {
  try {
    if (as.startsWith("spiffe://")) return SpiffeId.parse(as).toString();
    if (!isIdentityName(as, names)) {
      yaml.problem("policy-unknown-name", at, `unknown identity ${as}`, nearestHint(as, names.identities));
    }
    return SpiffeId.of(names.trustDomain, as).toString();
  } catch (thrown) {
    yaml.problem("policy-unknown-name", at, messageOf(thrown));
    return undefined;
  }
}

function requestOf(
  expected: Expectation,
  caller: string | undefined,
  at: PathInFile,
  yaml: YamlFile,
  names: PolicyNames,
): AccessRequest | undefined {
  const words = expected.call.trim().split(/\s+/);
  const method = words.length > 1 ? words[0] : undefined;
  const target = words.length > 1 ? (words[1] ?? "") : (words[0] ?? "");
  const service = names.services.find(({ name, identity }) =>
    method === undefined
      ? target.startsWith(`${name}/`) || target.startsWith(`${identity}/`)
      : target === name || target === identity,
  );
  if (service === undefined) {
    const known = names.services.map(({ name }) => name);
    const named = method === undefined ? (target.split("/")[0] ?? "") : target;
    yaml.problem("policy-unknown-name", at, `unknown service in ${expected.call}`, nearestHint(named, known));
    return undefined;
  }
  const id = SpiffeId.of(names.trustDomain, service.identity).toString();
  if (service.protocol === "http") {
    const path = words[2];
    if (method === undefined || path === undefined) {
      yaml.problem("policy-shape", at, `${service.name} is an http service: write GET ${service.name} /path`);
      return undefined;
    }
    const query = Object.fromEntries(Object.entries(expected.with ?? {}).map(([key, value]) => [key, String(value)]));
    return httpAccessRequest({ caller, service: id, method, path, query });
  }
  if (method !== undefined) return mcpAccessRequest({ caller, service: id, method, args: expected.with ?? {} });
  const prefix = target.startsWith(`${service.identity}/`) ? service.identity : service.name;
  const tool = target.slice(prefix.length + 1);
  return mcpAccessRequest({ caller, service: id, method: "tools/call", tool, args: expected.with ?? {} });
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
