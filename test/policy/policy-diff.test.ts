import { expect, test } from "vitest";
import { diffPolicySets } from "../../src/policy/policy-diff.js";
import { PAYMENTS_YAML, setOf } from "./shop.js";

const allow = (scope: string, when = "") =>
  `rules: [{ name: a, allow: { from: agents/*, to: payments, ${scope} }${when && `, when: "${when}"`} }]`;
const deny = (scope: string, when = "") => `rules: [{ name: d, deny: { ${scope} }${when && `, when: "${when}"`} }]`;

const long = (subject: string) =>
  `rules: [{ name: a, allow: { subject: { id: agents/*, ${subject} }, resource: { server: payments } } }]`;
const uri = (pattern: string) =>
  `rules: [{ name: a, allow: { from: agents/*, resource: { server: payments, resource: "${pattern}" } } }]`;
const guarded = (more: string, name = "a") =>
  `rules: [{ name: ${name}, allow: { from: agents/*, to: payments }${more && `, ${more}`} }]`;
const pace = (more: string, scope = "to: payments") => `rules: [{ name: p, match: { ${scope} }, ${more} }]`;

test.each<[string, string, string, boolean]>([
  ["a new allow", "", allow("tools: x"), true],
  ["a removed allow", allow("tools: x"), "", false],
  ["one more tool", allow("tools: [x]"), allow("tools: [x, y]"), true],
  ["one tool less", allow("tools: [x, y]"), allow("tools: [y]"), false],
  ["a pattern for a name", allow("tools: get_x"), allow("tools: get_*"), true],
  ["a name for a pattern", allow("tools: get_*"), allow("tools: [get_x, get_y]"), false],
  ["no tools any more", allow("tools: x"), allow(""), true],
  ["a condition added", allow("tools: x"), allow("tools: x", "args.a < 1"), false],
  ["a condition removed", allow("tools: x", "args.a < 1"), allow("tools: x"), true],
  ["a condition changed", allow("tools: x", "args.a < 2"), allow("tools: x", "args.a < 1"), true],
  ["a new deny", allow(""), `${allow("")}\n  `.replace("]\n", ", { name: d, deny: { to: payments } }]\n"), false],
  ["a removed deny", deny("to: payments"), "", true],
  ["a deny of less", deny("to: payments"), deny("to: payments, tools: x"), true],
  ["a deny of more", deny("to: payments, tools: x"), deny("to: payments"), false],
  ["a deny with a condition now", deny("to: payments"), deny("to: payments", "args.a > 1"), true],
  ["a deny without its condition", deny("to: payments", "args.a > 1"), deny("to: payments"), false],
  [
    "one rule cut in two",
    allow("tools: [x, y]"),
    `${allow("tools: x").slice(0, -1)}, { name: b, allow: { from: agents/*, to: payments, tools: y } }]`,
    false,
  ],
  [
    "another path",
    "rules: [{ name: a, allow: { from: agents/*, to: invoices, path: /v1/* } }]",
    "rules: [{ name: a, allow: { from: agents/*, to: invoices, path: /v1/** } }]",
    true,
  ],
  [
    "a narrower path",
    "rules: [{ name: a, allow: { from: agents/*, to: invoices, path: /v1/** } }]",
    "rules: [{ name: a, allow: { from: agents/billing, to: invoices, method: GET, path: /v1/x/* } }]",
    false,
  ],
  [
    "the service's name for its identity",
    "rules: [{ name: a, allow: { from: agents/*, to: payments } }]",
    "rules: [{ name: a, allow: { from: agents/*, to: mcp/payments } }]",
    false,
  ],
  ["a text for a number", long("properties: { level: 1 }"), long('properties: { level: "1" }'), true],
  [
    "two texts for one that reads so",
    long('properties: { role: "a or b" }'),
    long("properties: { role: [a, b] }"),
    true,
  ],
  ["two users for one that reads so", long('user: "a or b"'), long("user: [a, b]"), true],
  [
    "the same name elsewhere as an actor",
    long("actors: agents/planner"),
    long("actors: spiffe://far.example/agents/planner"),
    true,
  ],
  ["one value less", long("properties: { role: [a, b] }"), long("properties: { role: [b] }"), false],
  ["an evidence asked for", allow(""), long("evidence: launch"), false],
  ["an evidence no longer asked for", long("evidence: launch"), allow(""), true],
  ["one evidence more that is enough", long("evidence: launch"), long("evidence: [launch, parent]"), true],
  ["one evidence less", long("evidence: [launch, parent]"), long("evidence: parent"), false],
  ["another user", long("user: alice"), long("user: bob"), true],
  ["one of the users", long("user: [ali*, bob]"), long("user: alice"), false],
  ["another property", long("properties: { role: a }"), long("properties: { role: b }"), true],
  ["an actor less", long("actors: [agents/billing, agents/planner]"), long("actors: agents/planner"), false],
  ["an actor more", long("actors: agents/planner"), long("actors: agents/*"), true],
  ["a time", allow(""), allow("time: { days: mon-fri }"), false],
  ["no time any more", allow("time: { days: mon-fri }"), allow(""), true],
  ["another time", allow("time: { days: mon-fri }"), allow("time: { days: mon-thu }"), true],
  ["another context", allow("context: { channel: cli }"), allow("context: { channel: [cli, web] }"), true],
  ["another resource", uri("file:///a/*"), uri("file:///a/**"), true],
  ["one of the resources", uri("file:///a/**"), uri("file:///a/b/c"), false],
  [
    "a deny that only some users meet",
    deny("to: payments"),
    deny("subject: { user: alice }, resource: { server: payments }"),
    true,
  ],
  ["a limit", guarded(""), guarded("limit: 5 per minute"), false],
  ["no limit any more", guarded("limit: 5 per minute"), guarded(""), true],
  ["a tighter limit", guarded("limit: 5 per minute"), guarded("limit: 60 per hour"), true],
  ["a limit tighter in both ways", guarded("limit: 5 per minute"), guarded("limit: 2 per minute"), false],
  ["a looser limit", guarded("limit: 5 per minute"), guarded("limit: 6 per minute"), true],
  [
    "a limit counted apart",
    guarded("limit: 5 per minute"),
    guarded("limit: { rate: 5, per: minute, for: [identity, tool] }"),
    true,
  ],
  ["a limit under another name", guarded("limit: 5 per minute"), guarded("limit: 5 per minute", "b"), true],
  [
    "a shorter wait",
    guarded("limit: 5 per minute"),
    guarded("limit: { rate: 5, per: minute, backoff: { max: 1m } }"),
    true,
  ],
  ["an obligation", guarded(""), guarded("require: [approval]"), false],
  ["an obligation less", guarded("require: [approval, log]"), guarded("require: [log]"), true],
  [
    "another way to do it",
    guarded("require: [{ type: approval, properties: { by: a } }]"),
    guarded("require: [approval]"),
    true,
  ],
  [
    "an obligation by another id",
    guarded("require: [approval]"),
    guarded("require: [{ type: approval, id: x }]"),
    false,
  ],
  ["a match rule", "", pace("limit: 5 per minute"), false],
  ["no match rule any more", pace("limit: 5 per minute"), "", true],
  ["a match rule about less", pace("limit: 5 per minute"), pace("limit: 5 per minute", "to: payments, tools: x"), true],
  [
    "a match rule about more",
    pace("limit: 5 per minute", "to: payments, tools: x"),
    pace("limit: 5 per minute"),
    false,
  ],
  ["a looser match rule", pace("limit: 5 per minute"), pace("limit: 5 per second"), true],
  ["an allow in shadow", allow(""), guarded("shadow: true"), false],
  ["an allow out of shadow", guarded("shadow: true"), allow(""), true],
  ["a deny in shadow", deny("to: payments"), "rules: [{ name: d, deny: { to: payments }, shadow: true }]", true],
])("%s", (_what, old, next, widened) => {
  expect(diffPolicySets(setOf(old), setOf(next)).widened).toBe(widened);
  expect(diffPolicySets(setOf(next), setOf(next))).toEqual({ widened: false, changes: [] });
});

test("the changes are lines that say what went and what came", () => {
  const next = PAYMENTS_YAML.replace("<= 1000", "<= 5000").replace("# ", "");
  expect(diffPolicySets(setOf(PAYMENTS_YAML), setOf(next))).toEqual({
    widened: true,
    changes: [
      "- allow small-refunds: agents/billing → mcp/payments tools issue_refund when args.amount <= 1000",
      "+ allow small-refunds: agents/billing → mcp/payments tools issue_refund when args.amount <= 5000",
    ],
  });
  const comment = diffPolicySets(setOf(PAYMENTS_YAML), setOf(`# why\n${PAYMENTS_YAML}`));
  expect(comment).toEqual({ widened: false, changes: [] });
});

test("a change names who is of another trust domain", () => {
  const rule = (from: string) => setOf(`rules: [{ name: a, allow: { from: "${from}", to: payments } }]`);
  expect(diffPolicySets(rule("agents/billing"), rule("spiffe://far.example/agents/billing")).changes).toEqual([
    "- allow a: agents/billing → mcp/payments",
    "+ allow a: spiffe://far.example/agents/billing → mcp/payments",
  ]);
});

test("a change moves nothing in the terminal that shows it, and hides nothing", () => {
  const tool = JSON.stringify("a\u001b[2K\u001b[1A\u009b\u202eb");
  const rules = setOf(`rules: [{ name: a, allow: { from: agents/billing, to: payments, tools: [${tool}] } }]`);
  expect(diffPolicySets(setOf("rules: []"), rules).changes).toEqual([
    "+ allow a: agents/billing → mcp/payments tools a\\u001b[2K\\u001b[1A\\u009b\\u202eb",
  ]);
});
