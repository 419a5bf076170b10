import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { policyTestJunit, runPolicyTests } from "../../src/policy/fixtures.js";
import { problemLine } from "../../src/policy/yaml-file.js";
import { PAYMENTS_YAML, setOf } from "./shop.js";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "policies-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

const run = (text: string) => {
  writeFileSync(join(directory, "payments.test.yaml"), text);
  return runPolicyTests(directory, setOf(PAYMENTS_YAML));
};

test("the fixtures of the README pass", async () => {
  const report = await run(`tests:
  - name: billing may read, may refund a little, may not refund a lot
    as: agents/billing
    expect:
      - { call: payments/get_invoice, with: { id: 1017 }, allow: true, rule: billing-reads }
      - { call: payments/issue_refund, with: { amount: 900 }, allow: true }
      - { call: payments/issue_refund, with: { amount: 4200 }, allow: false }
      - { call: mcp/payments/list_invoices, allow: true }
      - { call: initialize payments, allow: true }
      - { call: GET invoices /v1/invoices, with: { open: 1 }, allow: false, rule: default }
  - name: nobody
    expect: [{ call: payments/get_invoice, allow: false, rule: default }]
`);
  expect(report.problems).toEqual([]);
  expect(report).toMatchObject({ passed: 7, failed: 0, untested: ["nobody-drops-tables"] });
  expect(report.tests[0]?.at).toMatch(/^policies-\w+\/payments\.test\.yaml:2$/);
});

test("a failed expectation says where it stands, what was expected and why it was decided otherwise", async () => {
  const { passed, failed, tests } = await run(`tests:
  - name: wrong
    as: agents/billing
    expect:
      - { call: payments/issue_refund, with: { amount: 4200 }, allow: true }
      - { call: payments/get_invoice, allow: true, rule: small-refunds }
      - { call: payments/get_invoice, allow: true }
`);
  expect({ passed, failed }).toEqual({ passed: 1, failed: 2 });
  expect(tests[0]?.expectations.map(({ at, call, difference }) => [at.replace(/.*\//, ""), call, difference])).toEqual([
    [
      "payments.test.yaml:5",
      'agents/billing payments/issue_refund {"amount":4200}',
      "expected ALLOW, got DENY: small-refunds needs args.amount <= 1000: 4200 <= 1000 is false",
    ],
    [
      "payments.test.yaml:6",
      "agents/billing payments/get_invoice",
      "expected rule small-refunds, got ALLOW by billing-reads: allowed by billing-reads",
    ],
    ["payments.test.yaml:7", "agents/billing payments/get_invoice", ""],
  ]);
});

test("a fixture that names what does not exist is a problem with its place, not a denial that passes", async () => {
  const { problems } = await run(`tests:
  - name: typos
    as: agents/biling
    expect:
      - { call: payment/get_invoice, allow: false }
      - { call: invoices/x, allow: false }
      - { call: payments/x, alow: false, allow: false }
`);
  expect(problems.map((problem) => problemLine(problem).replace(/.*\//, ""))).toEqual([
    "payments.test.yaml:7:29: unknown key alow (did you mean allow?)",
  ]);
  const second = await run(`tests:
  - name: typos
    as: agents/biling
    expect:
      - { call: payment/get_invoice, allow: false }
      - { call: invoices/x, allow: false }
`);
  expect(second.problems.map((problem) => problemLine(problem).replace(/.*test.yaml/, ""))).toEqual([
    ":3:9: unknown identity agents/biling (did you mean agents/billing?)",
    ":5:17: unknown service in payment/get_invoice (did you mean payments?)",
    ":6:17: invoices is an http service: write GET invoices /path",
  ]);
});

test("a fixture file that cannot be read is a problem", async () => {
  mkdirSync(join(directory, "folder.test.yaml"));
  const { problems } = await run("tests: []");
  expect(problems).toMatchObject([{ severity: "error", code: "policy-file-unreadable" }]);
});

test("no fixtures and no folder are an empty report", async () => {
  expect(await runPolicyTests(join(directory, "none"), setOf(""))).toMatchObject({ passed: 0, failed: 0, tests: [] });
});

test("identities × calls: what `allowed` does not name must be denied", async () => {
  const report = await run(`tests:
  - name: who may what
    as: [agents/billing, agents/planner]
    calls: [payments/get_invoice, payments/list_invoices, DELETE invoices /v1/invoices/1]
    allowed:
      agents/billing: [payments/get_invoice, payments/list_invoices]
`);
  expect(report.problems).toEqual([]);
  expect(report.tests[0]?.expectations.map(({ call, passed, decision }) => [call, passed, decision.allowed])).toEqual([
    ["agents/billing payments/get_invoice", true, true],
    ["agents/billing payments/list_invoices", true, true],
    ["agents/billing DELETE invoices /v1/invoices/1", true, false],
    ["agents/planner payments/get_invoice", true, false],
    ["agents/planner payments/list_invoices", true, false],
    ["agents/planner DELETE invoices /v1/invoices/1", true, false],
  ]);
  const wrong = await run(`tests:
  - name: who may what
    as: [agents/billing, agents/planner]
    calls: [payments/get_invoice, payments/list_invoices]
    allowed: { agents/billing: [payments/get_invoice], agents/planner: all }
`);
  expect(wrong).toMatchObject({ passed: 1, failed: 3 });
});

test("a cell that no row or column has is a problem, not a denial that passes", async () => {
  const { problems } = await run(`tests:
  - name: typos
    as: [agents/billing]
    calls: [payments/get_invoice]
    allowed: { agents/biling: all, agents/billing: [payments/get_invoices] }
  - name: nothing
    as: agents/billing
`);
  expect(problems.map((problem) => problemLine(problem).replace(/^.*?\/(?=payments\.test)/, ""))).toEqual([
    "payments.test.yaml:5:31: agents/biling is not among those who call (did you mean agents/billing?)",
    "payments.test.yaml:5:52: payments/get_invoices is not among the calls (did you mean payments/get_invoice?)",
    "payments.test.yaml:6:5: a test has expect, or calls with allowed",
  ]);
});

test("the clock of a test stands where it says, and goes on where it says", async () => {
  writeFileSync(
    join(directory, "payments.test.yaml"),
    `tests:
  - name: in the office
    as: agents/billing
    at: 2026-03-02T16:59:50+01:00
    expect:
      - { call: payments/get_invoice, allow: true, times: 3 }
      - { call: payments/get_invoice, after: 20s, allow: false }
  - name: at noon
    as: agents/billing
    expect: [{ call: payments/get_invoice, allow: true }]
`,
  );
  const hours = `rules:
  - name: office-hours
    allow: { from: agents/billing, to: payments, tools: [get_invoice] }
    when: now.getHours("Europe/Berlin") < 17
`;
  const report = await runPolicyTests(directory, setOf(hours));
  expect(report).toMatchObject({ passed: 3, failed: 0, problems: [] });
});

test("the report as JUnit has a case for each expectation, and one for each error of a file", async () => {
  const report = await run(`tests:
  - name: "<refunds>"
    as: agents/billing
    expect:
      - { call: payments/get_invoice, allow: true }
      - { call: payments/issue_refund, with: { amount: 4200 }, allow: true }
      - { call: payment/get_invoice, allow: true }
`);
  const xml = policyTestJunit(report);
  expect(xml).toContain('<testsuites tests="3" failures="2" skipped="0">');
  expect(xml).toContain('name="agents/billing payments/get_invoice" classname="&lt;refunds&gt;"');
  expect(xml).toContain('<failure message="expected ALLOW, got DENY: small-refunds needs args.amount &lt;= 1000');
  expect(xml).toContain("unknown service in payment/get_invoice");
});

test("what a rule in shadow would change can be expected, and then counts as tested", async () => {
  const set = setOf(`rules:
  - { name: works, allow: { from: agents/billing, to: payments } }
  - { name: small, deny: { to: payments, tools: pay }, when: args.amount > 5, shadow: true }
`);
  writeFileSync(
    join(directory, "a.test.yaml"),
    `tests:
  - name: shadow
    as: agents/billing
    expect:
      - { call: payments/pay, with: { amount: 6 }, allow: true, shadow: [small] }
      - { call: payments/pay, with: { amount: 5 }, allow: true, shadow: [] }
      - { call: payments/pay, with: { amount: 6 }, allow: true, shadow: [] }
      - { call: payments/pay, with: { amount: 5 }, allow: true, shadow: [small] }
`,
  );
  const report = await runPolicyTests(directory, set);
  expect(report.tests[0]?.expectations.map(({ difference }) => difference)).toEqual([
    "",
    "",
    "expected shadow [], got [small]",
    "expected shadow [small], got []",
  ]);
  expect(report.untested).toEqual([]);
});

test("a call by a method that there is not is an error: it would be denied whatever the rules, and a denial is what many tests expect", async () => {
  const { problems } = await run(`tests:
  - name: misspelt
    as: agents/billing
    at: yesterday
    expect:
      - { call: DELTE invoices /v1/invoices/1, allow: false }
`);
  expect(problems.map(({ message }) => message)).toEqual(["tests.0.at: must be a time: 2025-01-15T12:00:00Z"]);
  const more = await run(`tests:
  - name: misspelt
    as: agents/billing
    expect:
      - { call: DELTE invoices /v1/invoices/1, allow: false }
      - { call: resources/raed payments, allow: false }
      - { call: DELETE invoices /v1/invoices/1, allow: false }
      - { call: resources/read payments, with: { uri: "file:///a" }, allow: false }
`);
  expect(more.problems.map(({ message, hint }) => `${message}: ${hint}`)).toEqual([
    "unknown method in DELTE invoices /v1/invoices/1: did you mean DELETE?",
    "unknown method in resources/raed payments: did you mean resources/read?",
  ]);
  expect(more).toMatchObject({ passed: 2, failed: 0 });
});
