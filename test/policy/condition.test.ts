import { expect, test } from "vitest";
import {
  type Condition,
  type ConditionInput,
  type ConditionOutcome,
  compileCondition,
} from "../../src/policy/condition.js";
import { answeredAtOnce, conditionInputOf as input } from "./condition-input.js";

const evaluated = (condition: Condition, given: ConditionInput): ConditionOutcome =>
  answeredAtOnce(condition.evaluate(given));
const outcome = (source: string, args: Record<string, unknown> = {}) =>
  evaluated(compileCondition(source), input(args)).outcome;

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
  ["args.customer.address.country == 'DE'", { customer: { address: { country: "DE" } } }, "true"],
  [
    "args.customer['first name'] == 'ann' && args['a-b'] == 'x'",
    { customer: { "first name": "ann" }, "a-b": "x" },
    "true",
  ],
  ["args.lines[1].price == 2", { lines: [{ price: 1 }, { price: 2 }] }, "true"],
  ["args.lines[2].price == 2", { lines: [{ price: 1 }, { price: 2 }] }, "error"],
  ["args.?customer.?address.?country.orValue('DE') == 'DE'", {}, "true"],
  ["args.?customer.?address.?country.orValue('DE') == 'DE'", { customer: { address: { country: "FR" } } }, "false"],
  ["args.lines[?0].?price.orValue(0) == 0", { lines: [] }, "true"],
  ["has(args.customer.address)", { customer: {} }, "false"],
  ["has(args.customer.address)", {}, "error"],
  [
    "args.s.lastIndexOf('ab') == 4 && args.s.lastIndexOf('ab', 3) == 2 && args.s.lastIndexOf('x') == -1",
    { s: "ababab" },
    "true",
  ],
  ["args.s.lastIndexOf('\u{1f600}') == 1 && args.s.lastIndexOf('') == 3", { s: "a\u{1f600}" }, "true"],
  ["args.s.upperAscii() == 'STRA\u00dfE' && args.s.lowerAscii() == 'stra\u00dfe'", { s: "Stra\u00dfe" }, "true"],
  ["duration(args.d) > duration('1m')", { d: "1h" }, "true"],
  ["duration(args.d) > duration('1m')", { d: "1".repeat(1000) }, "error"],
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
  ["args.amount <= 1000", {}, "args.amount <= 1000: args.amount is missing"],
  ["args.amount <= 1000", { amount: "9" }, "args.amount <= 1000: no such overload: string <= int"],
  [
    "args.amount <= 1000",
    { amount: { a: [1] } },
    "args.amount <= 1000: no such overload: map<string, list<double>> <= int",
  ],
  ["args.amount <= 1000", { amount: 9 }, "args.amount <= 1000: 9 <= 1000 is true"],
  ["false", {}, "false is false"],
])("%j with %j is explained", (source, args, expected) => {
  const condition = compileCondition(source);
  const given = input(args);
  expect(condition.describe(given, evaluated(condition, given))).toBe(expected);
});

test.each([
  ["args.customer.address.country == 'DE'", { customer: {} }, "args.customer.address is missing"],
  ["args.customer.address.country == 'DE'", {}, "args.customer is missing"],
  ["args.items.all(i, i.price < 5)", { items: [{}] }, "i.price is missing"],
  ["args[args.key] == 1", { key: "nothing" }, "args[args.key] is missing"],
])("%s says of %j which path is missing", (source, args, expected) => {
  const condition = compileCondition(source);
  expect(evaluated(condition, input(args))).toMatchObject({ outcome: "error", why: expected });
});

test("values are recorded under one way of writing their path, nested ones too", () => {
  const condition = compileCondition(
    "args['a b'].c == 1 && args.l[0].x == 2 && args.?q.?r.orValue(3) == 3 && args.m['k'] == 4",
  );
  const given = input({ "a b": { c: 1, secret: 9 }, l: [{ x: 2, secret: 9 }], q: { r: 3 }, m: { k: 4 } });
  expect(condition.valuesUsed(given)).toEqual({ 'args["a b"].c': 1, "args.l[0].x": 2, "args.q.r": 3, "args.m.k": 4 });
});

test("a sensitive argument is neither recorded nor shown, whole or in part; the others are", () => {
  const secret = "4111-1111";
  const when =
    "args.card.number.startsWith('4') && args.amount < 50 && args.card != {} && duration(args.card.number) > duration('1s')";
  const condition = compileCondition(when, { sensitive: ["args.card"] });
  for (const args of [
    { card: { number: secret }, amount: 60 },
    { card: { number: `x${secret}` }, amount: 40 },
    { card: { number: secret }, amount: 40 },
    { card: secret, amount: 40 },
  ]) {
    const given = input(args);
    const outcome = evaluated(condition, given);
    const said = JSON.stringify([outcome, condition.describe(given, outcome), condition.valuesUsed(given)]);
    expect(said).not.toContain("4111");
    expect(condition.valuesUsed(given)).toEqual({ "args.amount": args.amount });
  }
  const given = input({ card: { number: secret }, amount: 40 });
  const open = compileCondition(when);
  expect(JSON.stringify([open.describe(given, evaluated(open, given)), open.valuesUsed(given)])).toContain("4111");
});

test("an explanation escapes what the caller sent and keeps it short", () => {
  const condition = compileCondition("args.to == 'ann'");
  const given = input({ to: `\u001b[31m\u202e${"x".repeat(500)}` });
  const text = condition.describe(given, evaluated(condition, given));
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
  expect(condition.describe(none, evaluated(condition, none))).toContain(": ");
});
