import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import type { AccessRequest } from "../../src/policy/access-request.js";
import { withRule, withRuleKey } from "../../src/policy/edit-rules.js";
import { type Proposal, proposalsFor } from "../../src/policy/proposals.js";
import { call, decisionsIn, decisionsOf, http, PAYMENTS_YAML, setOf, setWith } from "./shop.js";

const NOW = new Date(Date.UTC(2025, 0, 15, 12));

function proposals(request: AccessRequest, text = PAYMENTS_YAML): readonly Proposal[] {
  const { decision, considered } = decisionsOf(text).explain(request);
  return proposalsFor(request, decision, considered, setOf(text), NOW);
}

function applied({ change }: Proposal, text = PAYMENTS_YAML): string {
  return change.kind === "add"
    ? withRule(text, { ...change.rule, name: "added" }, change.comment)
    : withRuleKey(text, change.rule, "when", change.when);
}

const refund = call("issue_refund", { invoice: 1017, amount: 4200 });

test("least privilege first: this call, this invoice, every invoice", () => {
  expect(proposals(refund).map(({ title, widens }) => [title, widens])).toEqual([
    ["a rule for issue_refund with args.invoice == 1017 and args.amount == 4200 only", false],
    ["policies/0.yaml:5 where args.invoice == 1017: args.amount <= 4200", false],
    ["policies/0.yaml:5 for every call: args.amount <= 4200", true],
  ]);
});

/** A user's request for a record, as an enforcement point asks it. */
const ofRecord = (user: string, name: string, properties?: Record<string, unknown>): AccessRequest => ({
  subject: { type: "user", id: user },
  action: { name, ...(properties !== undefined && { properties }) },
  resource: { type: "record", id: "record-1" },
});

test("of users and records it is about this one, this record and this way of acting", () => {
  const world = { entities: "entities: [{ type: user, id: bob }, { type: record, id: record-1 }]" };
  const set = setWith(world, "rules: []");
  const softly = ofRecord("bob", "delete", { soft: true });
  const { decision, considered } = decisionsIn(set).explain(softly);
  const [proposal] = proposalsFor(softly, decision, considered, set, NOW);
  if (proposal === undefined) throw new Error("there is one");
  expect(proposal.title).toBe("a rule for user:bob delete (soft true) record:record-1 only");
  const after = decisionsIn(setWith(world, applied(proposal, PAYMENTS_YAML)));
  const others = [
    softly,
    ofRecord("bob", "delete", { soft: false }),
    ofRecord("bob", "delete"),
    ofRecord("eve", "delete", { soft: true }),
  ];
  expect(others.map((other) => after.decide(other).allowed)).toEqual([true, false, false, false]);
});

test("a way around an approval, a limit or a user says so", () => {
  const text = `rules:
  - { name: care, allow: { from: agents/billing, to: payments, tools: refund_all }, require: [approval], limit: 1 per day }
  - { name: mine, allow: { subject: { id: agents/billing, user: alice }, resource: { server: payments, tool: refund_all } } }
`;
  const set = setOf(text);
  const request = call("refund_all");
  const { decision, considered } = decisionsOf(text).explain(request);
  expect(decision.allowed).toBe(true);
  const denied = { ...decision, allowed: false, reason: "care requires approval, which the relay does not know" };
  expect(proposalsFor(request, denied, considered, set, NOW).map(({ title }) => title)).toEqual([
    "a rule for refund_all only, without the approval of care and the limit of care and the user alice of mine",
  ]);
});

test("what leaves an argument open that is too long to be written down says that it widens", () => {
  const long = call("issue_refund", { invoice: 1017, amount: 4200, memo: "m".repeat(300) });
  expect(proposals(long).map(({ widens }) => widens)).toEqual([true, true, true]);
  const [, looser] = proposals(long);
  if (looser === undefined) throw new Error("there is one");
  const decisions = decisionsOf(applied(looser));
  expect(decisions.decide(call("issue_refund", { invoice: 1017, amount: 4200, memo: "another" })).allowed).toBe(true);
});

test("each, applied, allows the call; the narrower the fewer others", () => {
  const others = [
    refund,
    call("issue_refund", { invoice: 1017, amount: 4100 }),
    call("issue_refund", { invoice: 1018, amount: 4100 }),
    call("issue_refund", { invoice: 1018, amount: 900 }),
    call("issue_refund", { invoice: 1018, amount: 4201 }),
    call("issue_refund", { invoice: 1017, amount: 4200 }, "agents/planner"),
  ];
  const allowed = proposals(refund).map((proposal) => {
    const decisions = decisionsOf(applied(proposal));
    return others.map((other) => decisions.decide(other).allowed);
  });
  expect(allowed).toEqual([
    [true, false, false, true, false, false],
    [true, true, false, true, false, false],
    [true, true, true, true, false, false],
  ]);
});

test.each([
  ['args.currency == "EUR"', { currency: "USD" }, 'args.currency in ["EUR", "USD"]'],
  ["args.amount < 10 && args.amount > 2", { amount: 10 }, "args.amount <= 10 && args.amount > 2"],
  ["args.amount < 10 && args.amount > 2", { amount: 1 }, "args.amount < 10 && args.amount >= 1"],
])("%s with %j becomes %s", (when, args, looser) => {
  const text = PAYMENTS_YAML.replace("args.amount <= 1000", when);
  const last = proposals(call("issue_refund", args), text).at(-1);
  expect(last?.change).toMatchObject({ kind: "when", rule: "small-refunds", when: looser });
});

test.each([
  ["args.to.matches('^a')", { to: "b" }],
  ["args.amount <= 1000", {}],
  ["args.amount <= 1000", { amount: "x" }],
])("where %s with %j is no comparison that could be looser, there is the rule for this call alone", (when, args) => {
  const text = PAYMENTS_YAML.replace("args.amount <= 1000", when);
  expect(proposals(call("issue_refund", args), text).map(({ change }) => change.kind)).toEqual(["add"]);
});

test("there is none for what is allowed, and none where a deny decides", () => {
  expect(proposals(call("get_invoice"))).toEqual([]);
  expect(proposals(http("DELETE", "/v1/invoices/1"))).toEqual([]);
  expect(parse(stringify(proposals(http("GET", "/v1/invoices/1"))))).toHaveLength(1);
});
