import { expect, test } from "vitest";
import type { AccessRequest } from "../../src/policy/access-request.js";
import { withRule } from "../../src/policy/edit-rules.js";
import { proposalsFor } from "../../src/policy/proposals.js";
import { sparedDenial } from "../../src/policy/spared.js";
import { narrowestRule } from "../../src/policy/suggest-rule.js";
import { call, decisionsWith, id, PAYMENTS_YAML, setWith, shop } from "./shop.js";

const NOW = new Date(Date.UTC(2025, 0, 15, 12));
const names = { ...shop, shadowed: ["agents/billing"] };

function spared(request: AccessRequest, text = PAYMENTS_YAML) {
  const { decision, considered } = decisionsWith({ names }, text).explain(request);
  const denial = sparedDenial(decision);
  const proposals = denial && proposalsFor(request, denial, considered, setWith({ names }, text), NOW);
  return { decision, denial, proposals };
}

test("what an identity in shadow was let do is proposed as if it had been denied, least privilege first", () => {
  const refund = call("issue_refund", { invoice: 1017, amount: 4200 });
  const { decision, denial, proposals } = spared(refund);
  expect(decision).toMatchObject({ allowed: true, rule: "small-refunds" });
  expect(denial).toMatchObject({ allowed: false, rule: "small-refunds", deniedAbove: undefined });
  expect(denial?.reason).toBe("small-refunds needs args.amount <= 1000: 4200 <= 1000 is false");
  expect(proposals?.map(({ widens }) => widens)).toEqual([false, false, true]);
  // As it is without a shadow: the same proposals, and the first of them allows the call.
  const plain = decisionsWith({}, PAYMENTS_YAML).explain(refund);
  expect(proposals).toEqual(proposalsFor(refund, plain.decision, plain.considered, setWith({}, PAYMENTS_YAML), NOW));
  const [first] = proposals ?? [];
  if (first?.change.kind !== "add") throw new Error("no rule to add");
  const added = withRule(PAYMENTS_YAML, first.change.rule);
  expect(decisionsWith({}, added).decide(refund)).toMatchObject({ allowed: true, rule: "billing-issue_refund" });
});

test("nothing was spared where a rule allows, where a rule denies, and where only a rule is in shadow", () => {
  expect(spared(call("get_invoice")).denial).toBeUndefined();
  const denied = spared(call("drop"), "rules: [{ name: no, deny: { to: payments, tools: drop } }]");
  expect(denied).toMatchObject({ decision: { allowed: false, rule: "no" }, denial: undefined });
  const shadowed =
    "rules: [{ name: all, allow: { from: agents/*, to: payments } }, { name: no, deny: { to: payments }, shadow: true }]";
  const { decision, denial } = spared(call("get_invoice"), shadowed);
  expect(decision).toMatchObject({ allowed: true, shadow: [{ rule: "no", would: "deny", differs: true }] });
  expect(denial).toBeUndefined();
});

test("of a launcher in shadow that was spared, the proposal is about the launcher", () => {
  const text = "rules: [{ name: planner, allow: { from: agents/planner, to: payments } }]";
  const request = call("pay", { amount: 1 }, "agents/planner");
  const launched: AccessRequest = {
    ...request,
    subject: { ...request.subject, properties: { launched_by: [id("agents/billing")] } },
  };
  expect(decisionsWith({}, text).decide(launched)).toMatchObject({ allowed: false });
  const { decision, denial, proposals } = spared(launched, text);
  expect(decision).toMatchObject({ allowed: true, shadow: [{ subject: id("agents/billing"), would: "deny" }] });
  expect(denial).toMatchObject({ allowed: false, deniedAbove: id("agents/billing") });
  expect(proposals?.[0]?.change).toMatchObject({
    kind: "add",
    rule: { allow: { from: "agents/billing", tools: ["pay"] } },
  });
});

test("a limit for whichever rule allows is nothing that one more allow helps against", () => {
  const limit = (effect: string) => `rules:
  - { name: reads, allow: { from: agents/billing, to: payments }, ${effect === "allow" ? "limit: 1 per day" : ""} }
  - { name: pace, match: { to: payments }, limit: ${effect === "match" ? "1" : "9"} per day }
`;
  const proposed = (effect: string) => {
    const decisions = decisionsWith({}, limit(effect));
    expect(decisions.decide(call("get_invoice")).allowed).toBe(true);
    const { decision, considered } = decisions.explain(call("get_invoice"));
    expect(decision).toMatchObject({ allowed: false, rule: effect === "allow" ? "reads" : "pace" });
    return narrowestRule(call("get_invoice"), decision, considered);
  };
  expect(proposed("allow")).toMatchObject({ rule: { name: "billing-get_invoice" } });
  expect(proposed("match")).toBeUndefined();
});
