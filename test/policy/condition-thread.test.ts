import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ConditionInput, type ConditionOutcome, compileCondition } from "../../src/policy/condition.js";
import { ConditionThread, useConditionThread } from "../../src/policy/condition-thread.js";
import { createDecisionPoint } from "../../src/policy/decision-point.js";
import { jsonPieces } from "../../src/policy/json-pieces.js";
import { runs } from "../properties.js";
import { conditionInputOf } from "./condition-input.js";
import { call, setOf } from "./shop.js";

const entry = new URL("../../src/policy/condition-worker.ts", import.meta.url);
const execArgv = ["--import", new URL("../source-hooks.ts", import.meta.url).href];
const newThread = (deadlineMs: number) => new ConditionThread({ entry, execArgv, deadlineMs });
/** Long enough for any machine: only an evaluation that never ends meets it. */
const patient = newThread(60_000);

beforeAll(() => useConditionThread(patient));
afterAll(() => patient.close());

const inputOf = (args: Record<string, unknown>, caller = "spiffe://shop.local/agents/billing"): ConditionInput => {
  const input = conditionInputOf(args);
  return { ...input, caller: { ...input.caller, id: caller } };
};

const later = (source: string, args: Record<string, unknown>): Promise<ConditionOutcome> => {
  const outcome = compileCondition(source).evaluate(inputOf(args));
  if (!(outcome instanceof Promise)) throw new Error("evaluated at once");
  return outcome;
};

const numbers = (length: number) => Array.from({ length }, (_, index) => index);

test.each([
  ["args.items.all(i, i >= 0)", { items: numbers(200_000) }, { outcome: "true" }],
  ["args.items.all(i, i < 1000.0)", { items: numbers(200_000) }, { outcome: "false", part: 0 }],
  ["args.a == 1 && args.items.all(i, i < 9.0)", { a: 1, items: numbers(200_000) }, { outcome: "false", part: 1 }],
  ["args.items.all(i, i.price < 9.0)", { items: numbers(20_000) }, { outcome: "error" }],
  ["args.text.matches('^(a+)+$')", { text: `${"a".repeat(50_000)}!` }, { outcome: "false" }],
  ["args.text.matches('^(a+)+$')", { text: "a".repeat(50_000) }, { outcome: "true" }],
  ["args.text.contains('needle')", { text: `${"x".repeat(3_000_000)}needle` }, { outcome: "true" }],
  ["'k9' in args.map && args.map.all(k, k != 'x')", { map: keys(9_000) }, { outcome: "true" }],
  ["args.deep == args.deep && now.getHours() == 12", { deep: deep(60) }, { outcome: "true" }],
  [
    "args.text == 'a\\u0000\\n' || args.text.size() > 9",
    { text: '\u{1f600}\u0001"\\'.repeat(30_000) },
    { outcome: "true" },
  ],
])("%s over large arguments has an answer: %#", async (source, args, expected) => {
  expect(await later(source, args)).toMatchObject(expected);
});

test("what is small is answered at once, and both say the same", async () => {
  const condition = compileCondition("args.items.exists(i, i > 5.0 && i < 7.0)");
  expect(condition.evaluate(inputOf({ items: numbers(10) }))).toEqual({ outcome: "true" });
  expect(await condition.evaluate(inputOf({ items: numbers(20_000) }))).toEqual({ outcome: "true" });
});

test("an evaluation that takes too long is an error with that reason, and the next one has a new thread", async () => {
  const thread = newThread(300);
  const endless = "args.l.all(a, args.l.all(b, args.l.exists(c, c == a + b + 0.5 || c < 0.0) || true))";
  expect(await thread.evaluate(endless, inputOf({ l: numbers(3_000) }))).toEqual({
    outcome: "error",
    why: "took longer than 0.3 s",
  });
  const unhurried = newThread(60_000);
  expect(await unhurried.evaluate("args.l.size() == 3000", inputOf({ l: numbers(3_000) }))).toEqual({
    outcome: "true",
  });
  await unhurried.close();
  await thread.close();
});

test("what the thread gave up on is described without evaluating it on the event loop", async () => {
  const thread = newThread(300);
  useConditionThread(thread);
  const condition = compileCondition("args.a == 1.0 && args.l.all(i, args.l.exists(j, j == i))");
  const described = async (length: number) => {
    let reads = 0;
    const counted = new Proxy(numbers(length), {
      get(list, key, receiver) {
        reads += 1;
        return Reflect.get(list, key, receiver);
      },
    });
    const input = inputOf({ a: 1, l: counted });
    const outcome = await condition.evaluate(input);
    reads = 0;
    return { outcome, text: condition.describe(input, outcome), reads };
  };
  const { outcome, text, reads } = await described(6_000);
  expect(outcome).toEqual({ outcome: "error", why: "took longer than 0.3 s" });
  expect(text).toBe(`${condition.source}: took longer than 0.3 s`);
  expect(reads).toBeLessThan(20_000);
  // The part of what is small is looked for.
  const small = inputOf({ a: 1, l: [1, 2, "x"], x: 0 });
  const failing = compileCondition("args.a == 1.0 && args.l.all(i, i < 9.0)");
  expect(failing.describe(small, (await failing.evaluate(small)) as ConditionOutcome)).toMatch(
    /^args\.l\.all\(i, i < 9\.0\): /,
  );
  await thread.close();
  useConditionThread(patient);
});

test("an evaluation that fills the memory of its thread is an error, and ends nothing else", async () => {
  const hungry = "args.l.map(a, args.l.map(b, args.l + args.l)).size() > 0";
  const outcome = await patient.evaluate(hungry, inputOf({ l: numbers(2_000) }));
  expect(outcome).toEqual({ outcome: "error", why: "needed more than 256 MiB" });
  expect(await patient.evaluate("args.l.size() == 2", inputOf({ l: numbers(2) }))).toEqual({ outcome: "true" });
});

test("no caller can have more than four waiting, and the others take turns with it", async () => {
  const order: string[] = [];
  const ask = (caller: string, wanted: string) =>
    patient.evaluate("args.l.size() == 2", inputOf({ l: [1, 2] }, caller)).then((outcome) => {
      order.push(wanted);
      return outcome.outcome;
    });
  // The first is under way at once, four wait.
  const flood = ["f1", "f2", "f3", "f4", "f5", "f6"].map((each) => ask("spiffe://shop.local/agents/flood", each));
  const other = ask("spiffe://shop.local/agents/other", "o1");
  expect(await Promise.all(flood)).toEqual(["true", "true", "true", "true", "true", "error"]);
  expect(await other).toBe("true");
  expect(order.indexOf("o1")).toBeLessThan(order.indexOf("f2"));
});

test("a decision over large arguments: what holds denies or allows, what cannot be evaluated denies, and explain says the same", async () => {
  const set = setOf(`
rules:
  - { name: lists, allow: { from: agents/billing, to: payments, tools: [pay, refund] }, when: "args.l.all(i, i >= 0)" }
  - { name: odd, deny: { from: agents/billing, to: payments, tools: [pay] }, when: "args.l.exists(i, i == 0.5)" }
  - { name: broken, deny: { from: agents/billing, to: payments, tools: [refund] }, when: "args.l.all(i, i.x)" }
`);
  const clock = { now: () => Date.UTC(2025, 0, 15, 12), after: () => () => {} };
  const decisions = createDecisionPoint(set, { clock, random: randomBytes });
  const list = numbers(20_000);
  const decide = async (tool: string, l: unknown[]) => decisions.decide(call(tool, { l }));
  expect(await decide("pay", list)).toMatchObject({ allowed: true, rule: "lists" });
  expect(await decide("pay", [...list, 0.5])).toMatchObject({ allowed: false, rule: "odd" });
  expect(await decide("pay", [-1, ...list])).toMatchObject({
    ...{ allowed: false, conditional: true, rule: "lists" },
    reason: expect.stringContaining("lists needs args.l.all(i, i >= 0): [-1,0,1,"),
  });
  expect(await decide("refund", list)).toMatchObject({
    ...{ allowed: false, rule: "broken", reason: "denied by broken: args.l.all(i, i.x): i.x is missing" },
  });
  const { decision, considered } = await decisions.explain(call("refund", { l: list }));
  expect(decision).toMatchObject({ allowed: false, rule: "broken" });
  expect(considered).toContainEqual(expect.objectContaining({ rule: "lists", outcome: "matched" }));
  expect(considered).toContainEqual(expect.objectContaining({ rule: "broken", outcome: "condition-error" }));
});

test("many conditions over one input share its turns: those that have no room any more are answered in a later turn", async () => {
  const condition = compileCondition("args.l.all(i, i >= 0)");
  const input = inputOf({ l: numbers(300) });
  const outcomes = Array.from({ length: 20 }, () => condition.evaluate(input));
  expect(outcomes.filter((outcome) => outcome instanceof Promise).length).toBeGreaterThan(5);
  expect(outcomes[0]).toEqual({ outcome: "true" });
  let turns = 0;
  let done = false;
  const count = () => {
    turns += 1;
    if (!done) setImmediate(count);
  };
  setImmediate(count);
  expect(await Promise.all(outcomes)).toEqual(Array.from({ length: 20 }, () => ({ outcome: "true" })));
  done = true;
  expect(turns).toBeGreaterThan(2);
});

test("the keys of a large map are listed once for all conditions of a decision, and for its reason", async () => {
  const rules = numbers(30).map((index) => ({
    ...{ name: `rule${index}`, allow: { from: "agents/billing", to: "payments", tools: ["pay"] } },
    when: `args.m.all(k, k != 'k${index}')`,
  }));
  const clock = { now: () => Date.UTC(2025, 0, 15, 12), after: () => () => {} };
  const decisions = createDecisionPoint(setOf(JSON.stringify({ rules })), { clock, random: randomBytes });
  let listed = 0;
  const m = listing(keys(9_000), () => {
    listed += 1;
  });
  expect(await decisions.decide(call("pay", { m }))).toMatchObject({
    ...{ allowed: false, rule: "rule0", values: { "args.m": "(more than 1024 characters of JSON)" } },
    reason: expect.stringContaining('{"k0":0,'),
  });
  expect(listed).toBe(1);
});

test("what a condition read of large arguments is written out in many turns of the event loop", async () => {
  const slow = () => {
    const end = performance.now() + 3;
    while (performance.now() < end);
  };
  const names = numbers(10).map((index) => `m${index}`);
  const args = Object.fromEntries(names.map((name) => [name, listing(keys(10), slow)]));
  const input = inputOf(args);
  const condition = compileCondition(names.map((name) => `args.${name}.size() >= 0`).join(" && "));
  let turns = 0;
  let done = false;
  const count = () => {
    turns += 1;
    if (!done) setImmediate(count);
  };
  setImmediate(count);
  const values = await condition.valuesUsedInTurns(input);
  done = true;
  expect(turns).toBeGreaterThan(8);
  expect(values).toEqual(Object.fromEntries(names.map((name) => [`args.${name}`, keys(10)])));
  expect(values).toEqual(condition.valuesUsed(input));
});

test("JSON in pieces is the JSON, whatever the size of a piece", () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.integer({ min: 1, max: 50 }), (value, characters) => {
      const pieces = [...jsonPieces(value, characters)];
      expect(JSON.parse(pieces.join(""))).toEqual(JSON.parse(JSON.stringify(value)));
    }),
    { numRuns: runs(500) },
  );
  const cut = [...jsonPieces(`${"x".repeat(9)}\u{1f600}${"y".repeat(9)}`, 10)];
  expect(cut.length).toBeGreaterThan(1);
  expect(JSON.parse(cut.join(""))).toBe(`${"x".repeat(9)}\u{1f600}${"y".repeat(9)}`);
});

/** `map`, calling `onListed` whenever its keys are listed. */
function listing<Value extends object>(map: Value, onListed: () => void): Value {
  return new Proxy(map, {
    ownKeys(target) {
      onListed();
      return Reflect.ownKeys(target);
    },
  });
}

function keys(count: number): Record<string, number> {
  return Object.fromEntries(numbers(count).map((index) => [`k${index}`, index]));
}

function deep(levels: number): unknown {
  return levels === 0 ? "end" : levels % 2 === 0 ? [deep(levels - 1)] : { d: deep(levels - 1) };
}
