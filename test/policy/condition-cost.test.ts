import fc from "fast-check";
import { expect, test } from "vitest";
import { compileCondition, STEPS_AT_ONCE } from "../../src/policy/condition.js";
import { boundOn } from "../../src/policy/condition-cost.js";
import { conditionEnvironment } from "../../src/policy/condition-environment.js";
import { extentOf } from "../../src/policy/condition-extent.js";
import { readSyntax } from "../../src/policy/condition-syntax.js";
import { runs } from "../properties.js";
import { conditionInputOf as inputOf } from "./condition-input.js";
import { counting } from "./steps.js";

/** What an evaluation really did, and what it was to do at most. */
function measured(source: string, args: Record<string, unknown>): { steps: number; bound: number } {
  const run = conditionEnvironment().parse(source);
  readSyntax(run.ast);
  const checked = run.check();
  if (!checked.valid) throw checked.error ?? new Error("not valid");
  const input = inputOf(args);
  const extent = extentOf(input);
  if (extent === "large") throw new Error("too large for this test");
  const bound = boundOn(run.ast, extent);
  const steps = counting(run);
  try {
    run({ ...input });
  } catch {
    // A condition may fail; what it took until then counts.
  }
  return { steps: steps.count, bound };
}

const isValid = (source: string): boolean => {
  try {
    const run = conditionEnvironment().parse(source);
    readSyntax(run.ast);
    return run.check().valid;
  } catch {
    return false;
  }
};

const names = ["args.a", "args.b", "args.l", "args.m", "x", "y", "args.m.l", "args.l[0]", "args.?q"];
const { expression } = fc.letrec<{ expression: string; text: string; list: string; flag: string }>((tie) => {
  const binary = (operators: string[]) =>
    fc
      .tuple(tie("expression"), fc.constantFrom(...operators), tie("expression"))
      .map(([a, op, b]) => `(${a} ${op} ${b})`);
  return {
    text: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      fc.constantFrom("'ab'", "''", "args.s", "x", "args.l.join()", "string(args.a)"),
      fc.tuple(tie("text"), tie("text")).map(([a, b]) => `(${a} + ${b})`),
      tie("text").map((a) => `${a}.upperAscii()`),
      fc.tuple(tie("text"), tie("text")).map(([a, b]) => `${a}.split(${b}).join(${b})`),
    ),
    list: fc.oneof(
      { depthSize: "small" },
      fc.constantFrom("args.l", "args.m.l", "[1, 2, 3]", "args.m", "[args.l, args.l]"),
      fc.tuple(tie("list"), tie("list")).map(([a, b]) => `(${a} + ${b})`),
      fc.tuple(tie("list"), fc.constantFrom("x", "y"), tie("expression")).map(([l, v, e]) => `${l}.map(${v}, ${e})`),
      fc.tuple(tie("list"), fc.constantFrom("x", "y"), tie("flag")).map(([l, v, e]) => `${l}.filter(${v}, ${e})`),
      tie("text").map((a) => `${a}.split('')`),
    ),
    flag: fc.oneof(
      { depthSize: "small" },
      fc.constantFrom("true", "has(args.a)", "args.s.matches('^(a+)+$')", "x == y", "args.l == args.m.l"),
      binary(["==", "!=", "<", "in", "&&", "||"]),
      fc
        .tuple(tie("list"), fc.constantFrom("all", "exists", "exists_one"), tie("flag"))
        .map(([l, m, e]) => `${l}.${m}(x, ${e})`),
      fc.tuple(tie("list"), fc.constantFrom("all", "exists"), tie("flag")).map(([l, m, e]) => `${l}.${m}(y, ${e})`),
      fc
        .tuple(tie("text"), fc.constantFrom("contains", "startsWith"), tie("text"))
        .map(([a, m, b]) => `${a}.${m}(${b})`),
      fc.tuple(tie("expression"), tie("flag")).map(([v, e]) => `cel.bind(x, ${v}, ${e})`),
    ),
    expression: fc.oneof(
      { depthSize: "small" },
      fc.constantFrom(...names, "1", "1.5", "'t'", "args.?a.orValue(1)", "args.l[?1].orValue('s')"),
      tie("text"),
      tie("list"),
      tie("flag"),
      binary(["+", "-", "*"]),
      tie("list").map((list) => `size(${list})`),
      fc.tuple(tie("flag"), tie("expression"), tie("expression")).map(([c, a, b]) => `(${c} ? ${a} : ${b})`),
      fc.array(tie("expression"), { maxLength: 3 }).map((each) => `[${each.join(", ")}]`),
      tie("expression").map((value) => `{'k': ${value}}`),
    ),
  };
});

const scalar = fc.oneof(
  fc.double({ noNaN: true, min: -9, max: 9 }),
  fc.string({ unit: fc.constantFrom("a", "b", "é"), maxLength: 12 }),
  fc.boolean(),
  fc.constant(null),
);
const { value } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    scalar,
    fc.array(tie("value"), { maxLength: 6 }),
    fc.dictionary(fc.constantFrom("a", "b", "l", "k"), tie("value"), { maxKeys: 3 }),
  ),
}));
const argumentsOf = fc.record(
  {
    a: value,
    b: value,
    l: fc.array(value, { maxLength: 12 }),
    s: fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 40 }),
    m: fc.dictionary(fc.constantFrom("a", "l", "k"), fc.array(value, { maxLength: 5 })),
  },
  { requiredKeys: [] },
);

test("the bound is one: no generated condition takes more steps for any generated arguments", () => {
  let evaluated = 0;
  fc.assert(
    fc.property(expression, argumentsOf, (source, args) => {
      const bound = `cel.bind(x, args.?a.orValue(0), cel.bind(y, args.?b.orValue('b'), ${source}))`;
      fc.pre(isValid(bound));
      evaluated += 1;
      const { steps, bound: most } = measured(bound, args);
      expect(steps).toBeLessThanOrEqual(most);
    }),
    { numRuns: runs(400) },
  );
  expect(evaluated).toBeGreaterThan(100);
});

const NUMBERS = Array.from({ length: 60 }, (_, index) => index);
const TREE = { l: NUMBERS.map((k) => ({ l: NUMBERS.slice(0, 8).map((n) => ({ l: [n, k] })), s: "s".repeat(k) })) };

/** Cases in which an evaluation comes near the bound, so that a weight that is left out shows. */
test.each([
  ["args.l.all(x, x.missing == 1)", { l: NUMBERS }],
  ["args.l.all(x, args.l.exists(y, x == y + 1000.0))", { l: NUMBERS }],
  ["args.l.all(x, x.l.all(y, y.l.all(z, z >= 0.0)))", TREE],
  ["args.l.map(x, args.l.map(y, x)).all(x, x == args.l)", { l: NUMBERS }],
  ["args.l.map(x, args.s + args.s).join().size() > 1", { l: NUMBERS, s: "s".repeat(200) }],
  ["args.l.all(x, args.s.matches('^(a+)+$'))", { l: NUMBERS, s: "a".repeat(200) }],
  ["args.s.split('').all(x, args.s.split('').exists(y, y == '!'))", { s: "a".repeat(60) }],
  ["cel.bind(t, args.s + args.s, cel.bind(u, t + t, (u + u).upperAscii() == args.s))", { s: "a".repeat(200) }],
  ["args.l.exists(x, x in args.l.map(y, y + 100.0))", { l: NUMBERS }],
  ["args.l == args.m", { l: [TREE], m: [structuredClone(TREE)] }],
  ["args.s.contains(args.t) || args.l.exists(x, args.s.contains(args.t))", { l: NUMBERS, s: "a".repeat(500), t: "ab" }],
])("%s takes no more than its bound", (source, args) => {
  const { steps, bound } = measured(source, args);
  expect(steps).toBeLessThanOrEqual(bound);
});

test("elements share the size of their list: nested walks over one tree are not reckoned as walks over the whole for each", () => {
  const own = boundOfSource("args.l.all(x, x.l.all(y, y >= 0.0))", 1000);
  const whole = boundOfSource("args.l.all(x, args.l.all(y, y >= 0.0))", 1000);
  expect(own).toBeLessThan(STEPS_AT_ONCE * 10);
  expect(whole).toBeGreaterThan(own * 100);
});

test("what a plain comparison takes does not follow the arguments, what a walk takes does", () => {
  for (const source of ["args.amount <= 1000 && args.currency in ['EUR', 'USD']", "args.a.b.c == 'x'"]) {
    expect(boundOfSource(source, 2 ** 22)).toBe(boundOfSource(source, 1));
  }
  expect(boundOfSource("args.l.all(x, x > 1)", 2 ** 20)).toBeGreaterThan(
    1000 * boundOfSource("args.l.all(x, x > 1)", 1),
  );
});

function boundOfSource(source: string, values: number): number {
  return compileCondition(source).bound({ values, longest: 8 });
}
