import fc from "fast-check";
import { expect, test } from "vitest";
import type { AccessRequest } from "../../src/policy/access-request.js";
import type { PolicyNames } from "../../src/policy/policy-names.js";
import { suggestRule } from "../../src/policy/suggest-rule.js";
import { call, decisionsOf, id, loadFor, PAYMENTS_YAML, shop } from "./shop.js";

const RULES = `${PAYMENTS_YAML}
  - name: planner-reads
    allow: { from: agents/planner, to: mcp/payments, tools: [get_invoice, issue_refund, delete_all] }
    when: args.amount <= 500
`;
const by = (request: AccessRequest, ...above: string[]): AccessRequest => ({
  ...request,
  subject: { ...request.subject, properties: { evidence: "launch", launched_by: above.map(id) } },
});
const decisions = decisionsOf(RULES);

test("a sub-agent is permitted what it and each agent above it are permitted", () => {
  const refund = (amount: number) => call("issue_refund", { amount });
  expect(decisions.decide(refund(900)).allowed).toBe(true);
  expect(decisions.decide(by(refund(400), "agents/planner")).allowed).toBe(true);
  expect(decisions.decide(by(refund(900), "agents/planner"))).toMatchObject({
    allowed: false,
    rule: "planner-reads",
    deniedAbove: id("agents/planner"),
    reason: "agents/planner, which launched the caller: planner-reads needs args.amount <= 500: 900 <= 500 is false",
    conditional: true,
    values: { "args.amount": 900, "agents/planner: args.amount": 900 },
  });
  // The sub-agent itself is permitted less: then it is the one that is denied.
  expect(decisions.decide(by(refund(4200), "agents/billing"))).toMatchObject({
    allowed: false,
    rule: "small-refunds",
    deniedAbove: undefined,
  });
});

test("of several denials one that no other arguments would help counts", () => {
  const lists = call("list_invoices");
  expect(decisions.decide(lists).allowed).toBe(true);
  expect(decisions.decide(by(lists, "agents/billing")).allowed).toBe(true);
  const denied = decisions.decide(by(call("issue_refund", { amount: 4200 }), "agents/planner", "mcp/payments"));
  expect(denied).toMatchObject({
    allowed: false,
    conditional: false,
    deniedAbove: id("mcp/payments"),
    rule: "default",
  });
});

test("tools are shown and sessions opened only where the whole chain may", () => {
  const [billing, payments] = [id("agents/billing"), id("mcp/payments")];
  expect(decisions.couldAllowTool(billing, payments, "list_invoices")).toBe(true);
  expect(decisions.couldAllowTool(billing, payments, "list_invoices", [id("agents/planner")])).toBe(false);
  expect(decisions.couldAllowTool(billing, payments, "get_invoice", [id("agents/planner")])).toBe(true);
  expect(decisions.couldReach(billing, payments, [id("agents/planner")])).toBe(true);
  expect(decisions.couldReach(billing, payments, [id("services/invoices")])).toBe(false);
});

test("a chain that cannot be read denies", () => {
  for (const above of ["agents/planner", [1], [""], Array(9).fill(id("agents/billing")), { 0: id("agents/billing") }]) {
    const request = call("get_invoice");
    const strange = { ...request.subject, properties: { launched_by: above } } as unknown as AccessRequest["subject"];
    expect(decisions.decide({ ...request, subject: strange }).allowed).toBe(false);
  }
  expect(decisions.decide(by(call("get_invoice"), ...Array(8).fill("agents/billing"))).allowed).toBe(true);
});

test("is explained for each agent, and the rule suggested is the one that is missing", () => {
  const request = by(call("list_invoices"), "agents/planner");
  const { decision, considered } = decisions.explain(request);
  expect(decision).toMatchObject({ allowed: false, deniedAbove: id("agents/planner") });
  expect(considered.filter(({ outcome }) => outcome === "matched").map(({ rule, subject }) => [rule, subject])).toEqual(
    [
      ["billing-reads", undefined],
      ["default", id("agents/planner")],
    ],
  );
  const suggestion = suggestRule(request, decision, considered) ?? "";
  expect(suggestion).toContain("from: agents/planner");
  expect(decisionsOf(`${RULES}\n${suggestion.replaceAll(/^/gm, "  ")}`).decide(request).allowed).toBe(true);
});

test("conditions see what the identity rests on, and who launched the caller", () => {
  const rules = (when: string) =>
    decisionsOf(
      `rules: [{ name: a, allow: { from: "agents/*", to: payments, tools: ["*"] }, when: ${JSON.stringify(when)} }]`,
    );
  const request = (evidence: string) => ({
    ...call("get_invoice"),
    subject: { type: "spiffe" as const, id: id("agents/billing"), properties: { evidence } },
  });
  expect(rules('caller.evidence == "launch"').decide(request("launch")).allowed).toBe(true);
  expect(rules('caller.evidence == "launch"').decide(request("parent")).allowed).toBe(false);
  expect(rules('caller.evidence == "launch"').decide(call("get_invoice")).allowed).toBe(false);
  const nobody = "size(caller.launchedBy) == 0";
  expect(rules(nobody).decide(call("get_invoice")).allowed).toBe(true);
  expect(rules(nobody).decide(by(call("get_invoice"), "agents/planner")).allowed).toBe(false);
});

test("permissions never grow with the chain", () => {
  const names = fc.constantFrom("agents/billing", "agents/planner", "mcp/payments", "services/invoices");
  const tools = fc.constantFrom("get_invoice", "list_invoices", "issue_refund", "delete_all");
  let allowed = 0;
  fc.assert(
    fc.property(names, tools, fc.nat(1200), fc.array(names, { maxLength: 8 }), (caller, tool, amount, above) => {
      const request = call(tool, { amount }, caller);
      const together = decisions.decide(by(request, ...above)).allowed;
      const alone = [caller, ...above].every((each) => decisions.decide(call(tool, { amount }, each)).allowed);
      expect(together).toBe(alone);
      if (together) allowed += 1;
    }),
    { numRuns: 2_000 },
  );
  expect(allowed).toBeGreaterThan(50);
});

test("a rule may name an instance of an entry that has instances, and no other path below it", () => {
  const withInstances = { ...shop, withInstances: ["agents/billing"] };
  const problems = (from: string, names: PolicyNames = withInstances) =>
    loadFor(names, `rules: [{ name: a, allow: { from: ${JSON.stringify(from)}, to: payments } }]`).problems;
  for (const from of ["agents/billing/one", "agents/billing/*", "agents/billing/w-*"]) {
    expect(problems(from)).toEqual([]);
    expect(problems(from, shop)).toHaveLength(1);
  }
  expect(problems("agents/planner/one")).toMatchObject([{ severity: "error" }]);
  expect(problems("agents/billing/one/two")).toMatchObject([{ severity: "error" }]);
});

test("a rule about an entry is not about its instances, and the other way round", () => {
  const set = (from: string) =>
    decisionsOf(`rules: [{ name: a, allow: { from: ${JSON.stringify(from)}, to: payments, tools: [get_invoice] } }]`);
  const [entry, instance] = [call("get_invoice"), call("get_invoice", {}, "agents/billing/one")];
  expect([set("agents/billing").decide(entry).allowed, set("agents/billing").decide(instance).allowed]).toEqual([
    true,
    false,
  ]);
  expect([set("agents/**").decide(entry).allowed, set("agents/**").decide(instance).allowed]).toEqual([true, true]);
});
