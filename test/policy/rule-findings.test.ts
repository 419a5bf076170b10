import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { contradictionIn } from "../../src/policy/comparison.js";
import { ruleFindings } from "../../src/policy/rule-findings.js";
import { call, decisionsOf, PAYMENTS_YAML, setOf } from "./shop.js";

const found = (...rules: string[]) =>
  ruleFindings(setOf(`rules:\n${rules.map((rule) => `  - ${rule}\n`).join("")}`)).findings.map(
    ({ rule, kind, detail }) => [rule, kind, detail],
  );

test("an ordinary file has none", () => {
  expect(ruleFindings(setOf(PAYMENTS_YAML))).toEqual({ findings: [], all: true });
});

describe("conditions that nothing fulfils", () => {
  test.each([
    ["args.amount > 10 && args.amount < 5", true],
    ["args.amount > 10 && args.amount <= 10", true],
    ["args.amount >= 10 && args.amount <= 10", false],
    ["args.amount == 3 && args.amount == 4", true],
    ['args.currency == "EUR" && args.currency == "USD"', true],
    ["args.amount > 10 && args.other < 5", false],
    ["args.amount == 3 || args.amount == 4", false],
  ])("%s: %s", (when, never) => {
    const rule = `{ name: a, allow: { from: agents/billing, to: payments, tools: [pay] }, when: '${when}' }`;
    expect(found(rule).map(([, kind]) => kind)).toEqual(never ? ["never-holds"] : []);
  });
});

describe("an allow within a deny", () => {
  const allow = (when = "") =>
    `{ name: pays, allow: { from: agents/billing, to: payments, tools: [pay, refund] }${when} }`;
  test.each([
    ["{ name: shut, deny: { to: payments } }", "", true],
    ["{ name: shut, deny: { to: payments, tools: [pay] } }", "", false],
    ["{ name: shut, deny: { from: agents/planner, to: payments } }", "", false],
    ["{ name: shut, deny: { to: payments }, when: args.amount > 100 }", ", when: args.amount > 500", true],
    ["{ name: shut, deny: { to: payments }, when: args.amount > 100 }", ", when: args.amount > 50", false],
    ["{ name: shut, deny: { to: payments }, when: args.amount > 100 }", "", false],
    ["{ name: shut, shadow: true, deny: { to: payments } }", "", false],
  ])("%s over an allow%s: %s", (deny, when, never) => {
    const kinds = found(allow(when), deny).filter(([rule]) => rule === "pays");
    expect(kinds.map(([, kind]) => kind)).toEqual(never ? ["never-allows"] : []);
  });

  test("two denies together may hold all of it", () => {
    expect(
      found(allow(), "{ name: a, deny: { to: payments, tools: [pay] } }", "{ name: b, deny: { tools: [refund] } }"),
    ).toEqual([["pays", "never-allows", "all of it is denied by a (policies/0.yaml:3), b (policies/0.yaml:4)"]]);
  });
});

test("of two that say the same the later by name adds nothing; a limit or an obligation is something", () => {
  const wide = "{ name: wide, allow: { from: agents/*, to: payments } }";
  const narrow = "{ name: narrow, allow: { from: agents/billing, to: payments, tools: [pay] } }";
  expect(found(wide, narrow)).toEqual([["narrow", "adds-nothing", "all of it is allowed by wide (policies/0.yaml:2)"]]);
  const twin = (name: string) => `{ name: ${name}, allow: { from: agents/billing, to: payments, tools: [pay] } }`;
  expect(found(twin("a"), twin("b"))).toEqual([["b", "adds-nothing", "all of it is allowed by a (policies/0.yaml:2)"]]);
  const limited = "{ name: wide, allow: { from: agents/*, to: payments }, limit: 10 per minute }";
  expect(found(limited, narrow)).toEqual([]);
});

test("what is said never to hold never decides, and what is said to add nothing changes no decision when it goes", () => {
  const scope = fc.record({
    from: fc.constantFrom("agents/billing", "agents/planner", "agents/*", "'**'"),
    tool: fc.constantFrom("pay", "refund", "'*'"),
    when: fc.constantFrom(
      "",
      ", when: args.amount > 10",
      ", when: args.amount <= 10",
      ", when: args.amount == 5",
      ", when: args.amount > 10 && args.amount < 3",
    ),
    effect: fc.constantFrom("allow", "deny"),
  });
  const request = fc.record({
    tool: fc.constantFrom("pay", "refund", "list"),
    amount: fc.constantFrom(0, 5, 10, 11),
    caller: fc.constantFrom("agents/billing", "agents/planner"),
  });
  const seen = { findings: 0 };
  fc.assert(
    fc.property(
      fc.array(scope, { minLength: 1, maxLength: 5 }),
      fc.array(request, { minLength: 4 }),
      (rules, asked) => {
        const lines = rules.map(
          ({ from, tool, when, effect }, index) =>
            `  - { name: r${index}, ${effect}: { from: ${from}, to: payments, tools: [${tool}] }${when} }\n`,
        );
        const { findings } = ruleFindings(setOf(`rules:\n${lines.join("")}`));
        seen.findings += findings.length;
        const all = decisionsOf(`rules:\n${lines.join("")}`);
        for (const { rule } of findings) {
          const without = decisionsOf(`rules:\n${lines.filter((line) => !line.includes(`name: ${rule},`)).join("")}`);
          for (const { tool, amount, caller } of asked) {
            const question = call(tool, { amount }, caller);
            expect(without.decide(question).allowed).toBe(all.decide(question).allowed);
          }
        }
      },
    ),
  );
  expect(seen.findings).toBeGreaterThan(10);
});

test("a contradiction is one: no number fulfils both", () => {
  const comparison = fc.tuple(fc.constantFrom("<", "<=", ">", ">=", "=="), fc.integer({ min: -3, max: 3 }));
  const holds = ([operator, bound]: [string, number], value: number) =>
    ({
      "<": value < bound,
      "<=": value <= bound,
      ">": value > bound,
      ">=": value >= bound,
      "==": value === bound,
    })[operator];
  fc.assert(
    fc.property(comparison, comparison, (one, other) => {
      const terms = [one, other].map(([operator, bound]) => `args.x ${operator} ${bound}`);
      const values = Array.from({ length: 41 }, (_, index) => (index - 20) / 4);
      const some = values.some((value) => holds(one, value) && holds(other, value));
      expect(contradictionIn(terms) === undefined).toBe(some);
    }),
    {
      examples: [
        [
          [">", -2],
          ["==", -2],
        ],
      ],
    },
  );
});
