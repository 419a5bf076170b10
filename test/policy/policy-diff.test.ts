import { expect, test } from "vitest";
import { diffPolicySets } from "../../src/policy/policy-diff.js";
import { PAYMENTS_YAML, setOf } from "./shop.js";

const allow = (scope: string, when = "") =>
  `rules: [{ name: a, allow: { from: agents/*, to: payments, ${scope} }${when && `, when: "${when}"`} }]`;
const deny = (scope: string, when = "") => `rules: [{ name: d, deny: { ${scope} }${when && `, when: "${when}"`} }]`;

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
