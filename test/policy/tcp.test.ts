import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, test } from "vitest";
import { httpAccessRequest, tcpAccessRequest } from "../../src/policy/access-request-of.js";
import { createDecisionPoint } from "../../src/policy/decision-point.js";
import { runPolicyTests } from "../../src/policy/fixtures.js";
import type { PolicyNames } from "../../src/policy/policy-names.js";
import { policySetOf } from "../../src/policy/policy-set.js";
import { replay } from "../../src/policy/replay.js";
import { requestDigest } from "../../src/policy/request-digest.js";
import { suggestRule } from "../../src/policy/suggest-rule.js";
import { problemLine } from "../../src/policy/yaml-file.js";
import { id, shop } from "./shop.js";

const names: PolicyNames = {
  ...shop,
  identities: [...shop.identities, "services/orders"],
  services: [...shop.services, { name: "orders", identity: "services/orders", protocol: "tcp" }],
};

const load = (text: string) => policySetOf([{ file: "policies/0.yaml", bytes: Buffer.from(text) }], names);

function setOf(text: string) {
  const { set, problems } = load(text);
  if (set === undefined) throw new Error(problems.map(problemLine).join("\n"));
  return set;
}

const clock = { now: () => Date.UTC(2025, 0, 15, 12), after: () => () => {} };
const pointOf = (text: string) => createDecisionPoint(setOf(text), { clock, random: (size) => new Uint8Array(size) });
const rule = (scope: string) => `rules:\n  - name: a\n    allow: ${scope}\n`;
const connect = tcpAccessRequest({ caller: id("agents/billing"), service: id("services/orders") });

describe("rules about connections", () => {
  it.each([
    "{ from: agents/billing, to: orders }",
    "{ from: agents/billing, to: services/orders, action: connect }",
    "{ from: agents/*, to: services/*, action: [connect] }",
    '{ from: agents/billing, to: orders, action: "con*" }',
    "{ subject: { id: agents/billing }, action: connect, resource: { type: tcp, service: orders } }",
    "{ from: agents/billing, to: [orders, invoices], action: [connect, GET] }",
  ])("%s allows one", (scope) => {
    expect(pointOf(rule(scope)).decide(connect)).toMatchObject({ allowed: true, rule: "a" });
    const other = tcpAccessRequest({ caller: id("services/invoices"), service: id("services/orders") });
    expect(pointOf(rule(scope)).decide(other)).toMatchObject({ allowed: false });
  });

  it.each([
    "{ from: agents/billing, to: services/*, method: GET }",
    "{ from: agents/billing, to: [orders, invoices], path: /v1/** }",
    "{ from: agents/billing, to: [orders, payments], tools: [get_invoice] }",
  ])("%s allows none", (scope) => {
    expect(pointOf(rule(scope)).decide(connect)).toMatchObject({ allowed: false });
  });

  it.each([
    ["{ from: agents/billing, to: orders, method: GET }", "method"],
    ["{ from: agents/billing, to: orders, path: /v1 }", "path"],
    ["{ from: agents/billing, to: orders, tools: [a] }", "tools"],
    ["{ from: agents/billing, to: orders, action: GET }", "action"],
    ["{ from: agents/billing, to: orders, action: tools/call }", "action"],
    ["{ from: agents/billing, resource: { service: orders, path: /v1 } }", "resource"],
    ["{ from: agents/billing, resource: { service: orders, prompt: a } }", "resource"],
    ["{ from: agents/billing, resource: { type: http, service: orders } }", "resource"],
  ])("%s is an error at load", (scope, key) => {
    const { set, problems } = load(rule(scope));
    expect(set).toBeUndefined();
    const lines = problems.map(problemLine);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/orders is (a tcp service|no http service)/);
    expect(lines[0]).toContain("write action: connect, or leave it out");
    const column = rule(scope).split("\n")[2]?.indexOf(`${key}:`) ?? 0;
    expect(lines[0]).toMatch(new RegExp(`^policies/0.yaml:3:(${column + 1}|${column + key.length + 3}):`));
  });

  it.each([
    ["{ from: agents/billing, to: orders, method: connect }", /no method \(write action: connect\)/],
    ["{ from: agents/billing, to: orders, action: conect }", /unknown action conect \(did you mean connect\?\)/],
    ["{ from: agents/billing, to: invoices, action: connect }", /invoices is an http service/],
    ["{ from: agents/billing, to: payments, action: connect }", /payments is an mcp service/],
    ["{ from: agents/billing, resource: { type: tcp, service: invoices } }", /invoices is an http service/],
    ["{ from: agents/billing, to: [orders, invoices], action: connect, path: /v1 }", /connect together with/],
  ])("%s is an error at load too", (scope, said) => {
    const { set, problems } = load(rule(scope));
    expect(set).toBeUndefined();
    expect(problems.map(problemLine).join("\n")).toMatch(said);
  });

  it("a tcp service has no other action, whoever asks", () => {
    const all = pointOf(rule('{ from: "**", to: orders }'));
    expect(all.decide(connect)).toMatchObject({ allowed: true });
    for (const name of ["http:GET", "tools/call", "read", ""]) {
      const asked = { ...connect, action: { name } };
      expect(all.decide(asked)).toMatchObject({ allowed: false });
    }
    // Another type of resource under the same id is another question.
    const http = httpAccessRequest({
      caller: id("agents/billing"),
      service: id("services/orders"),
      method: "GET",
      path: "/",
    });
    expect(pointOf(rule("{ from: agents/billing, to: orders, action: connect }")).decide(http)).toMatchObject({
      allowed: false,
    });
  });

  it("a deny of it wins", () => {
    const both = `${rule("{ from: agents/*, to: orders }")}  - { name: b, deny: { from: agents/billing, action: connect } }\n`;
    expect(pointOf(both).decide(connect)).toMatchObject({ allowed: false, rule: "b" });
    const planner = tcpAccessRequest({ caller: id("agents/planner"), service: id("services/orders") });
    expect(pointOf(both).decide(planner)).toMatchObject({ allowed: true });
  });
});

test("the rule that is suggested allows it, and nothing else", () => {
  const { decision, considered } = pointOf("rules: []\n").explain(connect) as never;
  const text = suggestRule(connect, decision, considered) ?? "";
  expect(text).toBe(
    `- name: billing-connect
  allow:
    from: agents/billing
    to: services/orders
    action: connect
`,
  );
  expect(pointOf(`rules:\n${text.replaceAll(/^/gm, "  ")}`).decide(connect)).toMatchObject({ allowed: true });
});

test("fixtures ask about connections", async () => {
  const directory = mkdtempSync(join(tmpdir(), "policies-"));
  const file = (call: string) => `tests:
  - name: connections
    as: [agents/billing, agents/planner]
    calls: [${JSON.stringify(call)}]
    allowed: { agents/billing: all }
`;
  const run = (call: string) => {
    writeFileSync(join(directory, "orders.test.yaml"), file(call));
    return runPolicyTests(directory, setOf(rule("{ from: agents/billing, to: orders, action: connect }")));
  };
  expect(await run("connect orders")).toMatchObject({ passed: 2, failed: 0, problems: [] });
  expect(await run("connect services/orders")).toMatchObject({ passed: 2, problems: [] });
  for (const wrong of ["GET orders /v1", "orders/get", "connect orders /v1", "ping orders"]) {
    const { problems } = await run(wrong);
    expect(problems.map(problemLine).join("\n")).toContain("orders is a tcp service: write connect orders");
  }
  rmSync(directory, { recursive: true });
});

test("a recorded connection is asked again under another policy", async () => {
  const request = tcpAccessRequest({
    caller: id("agents/billing"),
    callerIs: { evidence: "launch" },
    service: id("services/orders"),
  });
  const fields = {
    ...{ decision: "d1", verdict: "DENY", caller: id("agents/billing"), evidence: "launch", service: "orders" },
    ...{ serviceId: id("services/orders"), protocol: "tcp", action: "connect", target: "connect", engine: "rules" },
    ...{ rule: "default", values: {}, requestDigest: requestDigest(request) },
  };
  const entry = { sequence: 0, time: "2026-03-02T09:00:00.000Z", kind: "decision" as const, fields, hash: "" };
  const allowing = setOf(rule("{ from: agents/billing, to: orders, action: connect }"));
  const { replayed, changed, notReplayable } = await replay([entry], setOf("rules: []\n"), allowing);
  expect({ replayed, notReplayable }).toEqual({ replayed: 1, notReplayable: [] });
  expect(changed).toEqual([expect.objectContaining({ after: expect.objectContaining({ allowed: true }) })]);
});
