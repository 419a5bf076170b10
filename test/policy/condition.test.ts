import { expect, test } from "vitest";
import { type ConditionInput, compileCondition } from "../../src/policy/condition.js";

const input = (args: Record<string, unknown>): ConditionInput => ({
  args,
  caller: {
    ...{ id: "spiffe://shop.local/agents/billing", name: "agents/billing", trustDomain: "shop.local" },
    ...{ evidence: "launch", launchedBy: [], labels: {} },
  },
  subject: { type: "spiffe", id: "spiffe://shop.local/agents/billing", properties: {} },
  user: {},
  actors: [],
  action: { name: "tools/call", properties: {} },
  resource: {
    ...{ type: "mcp-tool", id: "spiffe://shop.local/mcp/payments", name: "mcp/payments", tool: "issue_refund" },
    ...{ uri: "", prompt: "", labels: {}, properties: {} },
  },
  request: { method: "tools/call", path: "", query: {} },
  context: {},
  now: new Date(Date.UTC(2025, 0, 15, 12)),
});
const outcome = (source: string, args: Record<string, unknown> = {}) =>
  compileCondition(source).evaluate(input(args)).outcome;

test.each([
  ["args.amount <= 1000", { amount: 1000 }, "true"],
  ["args.amount <= 1000", { amount: 1000.5 }, "false"],
  ["args.amount <= 1000", { amount: 4200 }, "false"],
  ["args.amount <= 1000", {}, "error"],
  ["args.amount <= 1000", { amount: "900" }, "error"],
  ["args.amount <= 1000", { amount: null }, "error"],
  ["args.amount <= 1000", { amount: [1] }, "error"],
  ["args.amount <= 1000", { amount: true }, "error"],
  ["args.amount <= 1000", { amount: Number.NaN }, "false"],
  ["has(args.note)", { note: "" }, "true"],
  ["has(args.note)", {}, "false"],
  ["args.flag", { flag: true }, "true"],
  ["args.flag", { flag: 1 }, "error"],
  ["args.flag", { flag: "true" }, "error"],
  ["args.user.name == 'ann'", { user: { name: "ann" } }, "true"],
  ["args['user'].name == 'ann'", { user: { name: "ann" } }, "true"],
  ["args.currency in ['EUR', 'USD']", { currency: "EUR" }, "true"],
  ["args.items.all(item, item.price < 10)", { items: [{ price: 1 }, { price: 9 }] }, "true"],
  ["args.items.all(item, item.price < 10)", { items: [{ price: 1 }, { price: 11 }] }, "false"],
  ["args.to.matches('^[a-z]+@shop[.]local$')", { to: "ann@shop.local" }, "true"],
  ["args.to.matches('^[a-z]+@shop[.]local$')", { to: "ann@shop.local.evil" }, "false"],
  ["args.to.all(t, t.matches('^a'))", { to: ["ab", "ac"] }, "true"],
  ["caller.name == 'agents/billing' && resource.tool == 'issue_refund'", {}, "true"],
  ["request.method == 'tools/call'", {}, "true"],
  ["now.getHours() >= 9 && now.getHours() < 18", {}, "true"],
  ["now > timestamp('2026-01-01T00:00:00Z')", {}, "false"],
  // Members of JavaScript's prototypes are no members of what the caller sent.
  ["has(args.constructor)", {}, "false"],
  ["args.toString == 'x'", {}, "error"],
  ["args.__proto__ == 'x'", {}, "error"],
  ["args.amount <= 1000", { amount: 5, constructor: "x" }, "error"],
  ["size(args) == 1", JSON.parse('{"__proto__": 1}'), "true"],
])("%s with %j is %s", (source, args, expected) => {
  expect(outcome(source, args)).toBe(expected);
});

test("matches takes linear time on the input that stalls JavaScript's expressions for half a minute", () => {
  expect(outcome("args.text.matches('^(a+)+$')", { text: `${"a".repeat(50_000)}!` })).toBe("false");
  expect(outcome("args.text.matches('^(a+)+$')", { text: "a".repeat(50_000) })).toBe("true");
});

test("text that is too long is an error, not a long wait", () => {
  expect(outcome("args.text.matches('x')", { text: "y".repeat(65_537) })).toBe("error");
});

test("a walk over more values than a condition may walk over is an error, a short one is not", () => {
  const walk = "args.items.all(i, args.items.exists(j, i == j))";
  expect(outcome(walk, { items: Array.from({ length: 50 }, (_, i) => i) })).toBe("true");
  expect(outcome(walk, { items: Array.from({ length: 5_000 }, (_, i) => i) })).toBe("error");
  expect(outcome(walk, { items: ["x".repeat(70_000)] })).toBe("error");
});

test.each([
  ["args.amount <= 1000", { amount: 4200 }, "args.amount <= 1000: 4200 <= 1000 is false"],
  [
    "args.currency == 'EUR' && args.amount <= 1000",
    { currency: "EUR", amount: 4200 },
    "args.amount <= 1000: 4200 <= 1000 is false",
  ],
  [
    "args.a == 'x'\n  || args.b == 'y'",
    { a: 1.5, b: "z" },
    "args.a == 'x' || args.b == 'y': 1.5 == 'x' || \"z\" == 'y' is false",
  ],
  ["args.amount <= 1000", {}, "args.amount <= 1000: no such key: amount"],
  ["args.amount <= 1000", { amount: "9" }, "args.amount <= 1000: no such overload: string <= int"],
  ["args.amount <= 1000", { amount: 9 }, "args.amount <= 1000: 9 <= 1000 is true"],
  ["false", {}, "false is false"],
])("%j with %j is explained", (source, args, expected) => {
  const condition = compileCondition(source);
  const given = input(args);
  expect(condition.describe(given, condition.evaluate(given))).toBe(expected);
});

test("an explanation escapes what the caller sent and keeps it short", () => {
  const condition = compileCondition("args.to == 'ann'");
  const given = input({ to: `\u001b[31m\u202e${"x".repeat(500)}` });
  const text = condition.describe(given, condition.evaluate(given));
  expect(text).not.toMatch(/\p{C}/u);
  expect(text).toContain('"\\u001b[31m\\u202e');
  expect(text.length).toBeLessThan(150);
});

test("only the values that a condition read are recorded, long ones shortened", () => {
  const condition = compileCondition("args.amount <= 1000 && args.user.name != '' && !has(args.memo)");
  const given = input({ amount: 1, user: { name: "n".repeat(1000), secret: "s" }, secret: "t" });
  const values = condition.valuesUsed(given);
  expect(Object.keys(values)).toEqual(["args.amount", "args.user.name"]);
  expect(values["args.amount"]).toBe(1);
  expect(String(values["args.user.name"])).toHaveLength(257);
});

test.each([
  ["(args.a == 1) || (args.b == 2)", ["(args.a == 1) || (args.b == 2)"]],
  ["((args.a == 1) || (args.b == 2)) && args.c == 3", ["(args.a == 1) || (args.b == 2)", "args.c == 3"]],
  ["(args.a == 1 && args.b == 2) && (args.c == 3)", ["args.a == 1", "args.b == 2", "args.c == 3"]],
  [`args.c == ")" && ((args.a == "(") || (args.b == ')'))`, [`args.c == ")"`, `(args.a == "(") || (args.b == ')')`]],
])("the terms of %s are conditions by themselves", (source, terms) => {
  const condition = compileCondition(source);
  expect(condition.terms).toEqual(terms);
  for (const term of condition.terms) compileCondition(term);
  const none = input({ a: 0, b: 0, c: 0 });
  expect(condition.describe(none, condition.evaluate(none))).toContain(": ");
});
