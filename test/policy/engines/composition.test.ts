import fc from "fast-check";
import { expect, test } from "vitest";
import type { AccessRequest } from "../../../src/policy/access-request.js";
import { createDecisionPoint } from "../../../src/policy/decision-point.js";
import type { PolicyEngine, Verdict } from "../../../src/policy/engine.js";
import { cedarEvaluator } from "../../../src/policy/engines/cedar-evaluator.js";
import { cedarLibrary } from "../../../src/policy/engines/cedar-library.js";
import { readCedarPolicies } from "../../../src/policy/engines/cedar-policies.js";
import { compareEngines } from "../../../src/policy/engines/load-engines.js";
import { policyDigest } from "../../../src/policy/engines/policy-digest.js";
import { call, decisionsOf, EVERYTHING, http, id, loadProject, message, record } from "./engine-project.js";

const PERMIT_ALL = "permit(principal, action, resource);";
const PERMIT_INVOICES = 'permit(principal, action, resource == Service::"invoices");';

test("of the engines that are asked all must permit, each in its scope; what none is asked about is denied", async () => {
  const decisions = await decisionsOf({
    files: {
      "all.cedar": PERMIT_ALL,
      "invoices.cedar": PERMIT_INVOICES,
      "never.cedar": "forbid(principal, action, resource);",
    },
    rulesScope: ["payments"],
    engines: [
      { name: "one", cedar: "all.cedar", scope: ["services/*"] },
      { name: "two", cedar: "invoices.cedar", scope: ["invoices", { type: "record" }] },
      { name: "three", cedar: "never.cedar", scope: [{ type: "vault" }] },
    ],
  });
  const user = { type: "user", id: "alice" };
  // rules alone
  expect(await decisions.judge(call("t"))).toMatchObject({ allowed: true, engine: "rules" });
  // one and two
  expect(await decisions.judge(http("GET", "/v1"))).toMatchObject({ allowed: true, engine: "one" });
  // two, by the type of the resource
  expect(await decisions.judge(record("read", "r", user))).toMatchObject({ allowed: false, engine: "two" });
  // three
  const vault: AccessRequest = { ...record("read", "r", user), resource: { type: "vault", id: "v" } };
  expect(await decisions.judge(vault)).toMatchObject({ allowed: false, engine: "three" });
  // nobody
  const other: AccessRequest = { ...vault, resource: { type: "door", id: "d" } };
  expect(await decisions.judge(other)).toMatchObject({
    allowed: false,
    reason: "no engine is asked about this resource",
  });
});

test("a scope is a service, not what begins like it, nor what calls itself so", async () => {
  const decisions = await decisionsOf({
    files: { "all.cedar": PERMIT_ALL },
    rulesScope: ["payments"],
    engines: [{ name: "one", cedar: "all.cedar", scope: ["invoices"] }],
  });
  const at = (type: string, id: string): AccessRequest => ({
    ...http("GET", "/v1"),
    resource: { type, id, properties: { path: "/v1" } },
  });
  expect(await decisions.judge(at("http", "spiffe://shop.local/services/invoices"))).toMatchObject({ allowed: true });
  for (const [type, id] of [
    ["http", "spiffe://shop.local/services/invoices2"],
    ["http", "spiffe://other.local/services/invoices"],
    ["record", "spiffe://shop.local/services/invoices"],
    ["http", "invoices"],
    ["http", ""],
  ] as const) {
    expect(await decisions.judge(at(type, id))).toMatchObject({ allowed: false });
  }
});

test("a tool call is one to every engine and every scope, whatever the request calls its resource", async () => {
  const decisions = await decisionsOf({
    files: {
      "tools.cedar": `${PERMIT_ALL} forbid(principal, action, resource == Tool::"payments/refund");`,
    },
    engines: [
      { name: "tools", cedar: "tools.cedar", scope: [{ type: "mcp-tool" }] },
      { name: "servers", cedar: "tools.cedar", scope: [{ type: "mcp" }] },
    ],
  });
  const named = (type: string, tool: string): AccessRequest => ({
    ...call(tool),
    resource: { ...call(tool).resource, type },
  });
  for (const type of ["mcp-tool", "mcp"]) {
    expect(await decisions.judge(named(type, "get_invoice"))).toMatchObject({ allowed: true });
    expect(await decisions.judge(named(type, "refund"))).toMatchObject({ allowed: false, engine: "tools" });
    const { considered } = await decisions.explain(named(type, "refund"));
    expect(considered.filter(({ outcome, effect }) => outcome === "matched" && effect === "deny")).toHaveLength(2);
  }
  // What is no tool call is not judged as one.
  const list = (type: string): AccessRequest => ({
    ...message("tools/list"),
    resource: { type, id: id("mcp/payments") },
  });
  for (const type of ["mcp-tool", "mcp"]) {
    expect(await decisions.judge(list(type))).toMatchObject({ allowed: true });
  }
});

test("an engine for MCP servers is asked about their tools", async () => {
  const decisions = await decisionsOf({
    files: { "never.cedar": "forbid(principal, action, resource);" },
    engines: [{ name: "servers", cedar: "never.cedar", scope: [{ type: "mcp" }] }],
  });
  expect(await decisions.judge(call("refund"))).toMatchObject({ allowed: false, engine: "servers" });
  expect(await decisions.judge(http("GET", "/v1"))).toMatchObject({ allowed: true });
});

test("every agent above the caller is asked about too, of every engine", async () => {
  const decisions = await decisionsOf({
    files: { "a.cedar": 'permit(principal, action, resource) unless { principal.name == "agents/planner" };' },
    engines: [{ name: "one", cedar: "a.cedar" }],
  });
  const alone = call("t");
  expect(await decisions.judge(alone)).toMatchObject({ allowed: true });
  const below = { launched_by: ["spiffe://shop.local/agents/planner"] };
  expect(await decisions.judge({ ...alone, subject: { ...alone.subject, properties: below } })).toMatchObject({
    allowed: false,
    deniedAbove: "spiffe://shop.local/agents/planner",
  });
});

test("the digest that decisions name covers scopes, settings, and every byte of every engine", async () => {
  const engine = { name: "one", cedar: "a.cedar" };
  const digestOf = async (project: Parameters<typeof decisionsOf>[0]) => (await decisionsOf(project)).policyDigest;
  const files = { "a.cedar": PERMIT_ALL, "e.json": "[]" };
  const base = await digestOf({ files, engines: [engine] });
  expect(await digestOf({ files, engines: [engine] })).toBe(base);
  const others = await Promise.all([
    digestOf({ files }),
    digestOf({ files: { ...files, "a.cedar": `${PERMIT_ALL} ` }, engines: [engine] }),
    digestOf({ files, engines: [{ ...engine, entities: "e.json" }] }),
    digestOf({ files, engines: [{ ...engine, scope: ["invoices"] }] }),
    digestOf({ files, engines: [{ ...engine, namespace: "Shop" }] }),
    digestOf({ files, engines: [engine], rulesScope: ["payments"] }),
    digestOf({ files, engines: [engine], rules: `${EVERYTHING}\n` }),
  ]);
  expect(new Set([base, ...others]).size).toBe(others.length + 1);
  expect(policyDigest("ab", [], undefined)).toBe("ab");
});

test("a changed policy widens unless all permits are the same and no forbid is lost", async () => {
  const load = async (policies: string, more: object = {}) => {
    const { loaded } = await loadProject({
      files: { "a.cedar": policies },
      engines: [{ name: "one", cedar: "a.cedar", ...more }],
    });
    if (loaded === undefined) throw new Error("does not load");
    return loaded;
  };
  const one = await load(PERMIT_ALL);
  const shut = await load(`${PERMIT_ALL}\nforbid(principal, action, resource);`);
  expect(compareEngines(one, one)).toEqual({ widened: false, changes: [] });
  expect(compareEngines(one, shut)).toMatchObject({ widened: false, changes: [expect.stringContaining("engine one")] });
  expect(compareEngines(shut, one)).toMatchObject({ widened: true });
  expect(compareEngines(one, await load(PERMIT_INVOICES))).toMatchObject({ widened: true });
  expect(compareEngines(one, await load(`${PERMIT_ALL}\n${PERMIT_INVOICES}`))).toMatchObject({ widened: true });
  expect(compareEngines(one, await load(PERMIT_ALL, { types: { spiffe: "Workload" } }))).toMatchObject({
    widened: true,
  });
});

/** An engine that answers as it is told: permits, denies, throws, rejects, at once or later. */
type Told = "permit" | "deny" | "throw" | "permit-later" | "deny-later" | "reject" | "not-asked";
const told = fc.constantFrom<Told>("permit", "deny", "throw", "permit-later", "deny-later", "reject", "not-asked");

function engine(name: string, does: Told): PolicyEngine {
  const verdict = (allowed: boolean): Verdict => ({
    ...{ allowed, rule: name, at: undefined, reason: name, message: undefined },
    ...{ values: {}, conditional: true, obligations: [] },
  });
  const judge = (): Verdict | Promise<Verdict> => {
    if (does === "throw") throw new Error(name);
    if (does === "reject") return Promise.reject(new Error(name));
    return does.endsWith("later") ? Promise.resolve(verdict(does.startsWith("permit"))) : verdict(does === "permit");
  };
  return { name, digest: name, isAsked: () => does !== "not-asked", judge, consider: () => [], couldAllow: () => true };
}

test("property: it is permitted exactly where some engine is asked and every one that is asked permits; errors never do", async () => {
  const { set, clock } = await loadProject({});
  await fc.assert(
    fc.asyncProperty(told, told, fc.boolean(), async (first, second, rules) => {
      const point = createDecisionPoint(set, {
        clock,
        random: (size) => new Uint8Array(size),
        engines: [engine("first", first), engine("second", second)],
        rules: { isAsked: () => rules, items: undefined },
      });
      const asked = [...(rules ? ["permit"] : []), first, second].filter((does) => does !== "not-asked");
      const expected = asked.length > 0 && asked.every((does) => does.startsWith("permit"));
      expect((await point.decide(call("t"))).allowed).toBe(expected);
      expect((await point.explain(call("t"))).decision.allowed).toBe(expected);
    }),
  );
});

/** Policies, entities and requests over a small world, so that they meet. */
const agent = fc.constantFrom("a", "b").map((name) => `Agent::"spiffe://shop.local/agents/${name}"`);
const group = fc.constantFrom("g", "h").map((name) => `Group::"${name}"`);
const tool = fc.constantFrom("payments/x", "payments/y").map((name) => `Tool::"${name}"`);
const service = fc.constantFrom("payments", "invoices").map((name) => `Service::"${name}"`);
const principalScope = fc.oneof(
  fc.constant("principal"),
  agent.map((uid) => `principal == ${uid}`),
  group.map((uid) => `principal in ${uid}`),
  fc.constant("principal is Agent"),
  group.map((uid) => `principal is Agent in ${uid}`),
  fc.constant("principal is User"),
);
const actionScope = fc.constantFrom(
  ...["action", 'action == Action::"tools/call"', 'action == Action::"tools/list"', 'action in Action::"session"'],
  ...['action in [Action::"tools/call", Action::"session"]', 'action in Action::"tools/call"', "action in []"],
);
const resourceScope = fc.oneof(
  fc.constant("resource"),
  tool.map((uid) => `resource == ${uid}`),
  service.map((uid) => `resource in ${uid}`),
  service.map((uid) => `resource == ${uid}`),
  fc.constant("resource is Tool"),
  service.map((uid) => `resource is Tool in ${uid}`),
);
const condition = fc
  .constantFrom("", " when { context.args.n < 2 };", " unless { context.args has n };")
  .map((text) => text || ";");
const policy = fc
  .tuple(fc.constantFrom("permit", "permit", "forbid"), principalScope, actionScope, resourceScope, condition)
  .map(([effect, p, a, r, c]) => `${effect}(${p}, ${a}, ${r})${c}`);

test("property: the policies found by the index decide as all of them do", async () => {
  const cedar = await cedarLibrary();
  const { cedarMapping } = await import("../../../src/policy/engines/cedar-request.js");
  const { set } = await loadProject({ entities: "entities: [{ type: group, id: g, properties: { groups: [h] } }]" });
  const mapping = {
    namespace: undefined,
    types: {},
    names: set.names,
    entities: set.entities,
    schema: undefined,
    more: new Map(),
  };
  const questionOf = cedarMapping(mapping);
  const groups = fc.subarray(["g", "h"]);
  const request = fc.tuple(
    fc.constantFrom("a", "b"),
    groups,
    fc.constantFrom("x", "y", undefined),
    fc.constantFrom(1, 3, undefined),
  );
  let permits = 0;
  let forbids = 0;
  fc.assert(
    fc.property(fc.array(policy, { maxLength: 6 }), request, (texts, [name, memberOf, toolName, n]) => {
      const files = [{ shown: "p.cedar", bytes: Buffer.from(texts.join("\n")) }];
      const { policies } = readCedarPolicies(cedar, files, undefined);
      expect(policies.length).toBe(texts.length);
      const asked: AccessRequest = {
        subject: { type: "spiffe", id: `spiffe://shop.local/agents/${name}`, properties: { groups: memberOf } },
        action: { name: toolName === undefined ? "tools/list" : "tools/call" },
        resource: {
          type: toolName === undefined ? "mcp" : "mcp-tool",
          id: "spiffe://shop.local/mcp/payments",
          properties: toolName === undefined ? {} : { tool: toolName },
        },
        context: { args: n === undefined ? {} : { n } },
      };
      const { keys, size: _, ...question } = questionOf(asked, new Date(0));
      const evaluator = cedarEvaluator(cedar, policies, undefined);
      const judge = (some: typeof policies) =>
        cedar.isAuthorized({
          ...question,
          policies: { staticPolicies: Object.fromEntries(some.map(({ id, text }) => [id, text])) },
        });
      const [all, few] = [judge(policies), evaluator.evaluate(question, evaluator.candidates(keys))];
      if (all.type !== "success" || few.type !== "success") throw new Error("Cedar cannot judge it");
      const sorted = ({ decision, diagnostics }: typeof all.response) => ({
        decision,
        reason: diagnostics.reason.toSorted(),
        errors: diagnostics.errors.map(({ policyId }) => policyId).sort(),
      });
      expect(sorted(few.response)).toEqual(sorted(all.response));
      if (all.response.decision === "allow") permits += 1;
      else if (all.response.diagnostics.reason.length > 0) forbids += 1;
    }),
  );
  expect(permits).toBeGreaterThan(0);
  expect(forbids).toBeGreaterThan(0);
});
