import fc from "fast-check";
import { expect, test } from "vitest";
import { stringify } from "yaml";
import type { AccessRequest } from "../../src/policy/access-request.js";
import { diffPolicySets } from "../../src/policy/policy-diff.js";
import { runs } from "../properties.js";
import { call, decisionsOf, http, message, setOf } from "./shop.js";

/** Rules and requests over few names, so that they meet often. */
const someOf = (values: string[]) =>
  fc.oneof(fc.constantFrom(...values), fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 2 }));
const from = someOf(["agents/billing", "agents/planner", "agents/*", "**"]);
const conditions = [
  "args.amount <= 10",
  "args.amount > 5",
  "args.a.b == 1",
  "args.flag",
  "size(args) < 2",
  "request.query.q == 'x'",
];
const mcpScope = fc.record(
  { from, to: fc.constantFrom("payments", "mcp/*"), tools: someOf(["pay", "pa*", "refund", "*"]) },
  { requiredKeys: ["from", "to"] },
);
const httpScope = fc.record(
  {
    from,
    to: fc.constantFrom("invoices", "services/**"),
    method: someOf(["GET", "POST"]),
    path: someOf(["/a", "/a/*", "/a/**", "/**", "/a/b"]),
  },
  { requiredKeys: ["from", "to"] },
);
const scope = fc.oneof(mcpScope, httpScope);
interface Shape {
  effect: "allow" | "deny";
  scope: Record<string, unknown>;
  when: string | undefined;
}
const rule: fc.Arbitrary<Shape> = fc.record({
  effect: fc.constantFrom("allow", "deny"),
  scope,
  when: fc.option(fc.constantFrom(...conditions), { nil: undefined }),
});
const rules = fc.array(rule, { maxLength: 6 });
const yamlOf = (shapes: readonly Shape[], prefix = "r") =>
  stringify({
    rules: shapes.map(({ effect, scope: given, when }, index) => ({
      name: `${prefix}${index}`,
      [effect]: given,
      ...(when === undefined ? {} : { when }),
    })),
  });

const caller = fc.constantFrom("agents/billing", "agents/planner");
const args = fc.oneof(
  fc.record({ amount: fc.oneof(fc.integer({ min: 0, max: 20 }), fc.string(), fc.constant(null)) }),
  fc.record({ a: fc.record({ b: fc.integer({ min: 0, max: 2 }) }), flag: fc.oneof(fc.boolean(), fc.string()) }),
  fc.dictionary(fc.constantFrom("amount", "a", "flag", "__proto__", "constructor", "toString"), fc.jsonValue()),
) as fc.Arbitrary<Record<string, unknown>>;
const request: fc.Arbitrary<AccessRequest> = fc.oneof(
  fc
    .tuple(fc.constantFrom("pay", "pad", "refund", "x"), args, caller)
    .map(([tool, given, who]) => call(tool, given, who)),
  fc
    .tuple(
      fc.constantFrom("GET", "POST", "PUT"),
      fc.constantFrom("/", "/a", "/a/b", "/a/b/c", "/ab"),
      fc.constantFrom({}, { q: "x" }),
    )
    .map(([method, path, query]) => http(method, path, query)),
  fc
    .tuple(fc.constantFrom("initialize", "tools/list", "resources/read"), caller)
    .map(([method, who]) => message(method, who)),
);
const RUNS = { numRuns: runs(150) };

test("some of what is generated is allowed and some is denied: the properties below are not empty", () => {
  const seen = { true: 0, false: 0 };
  fc.assert(
    fc.property(rules, request, (shapes, asked) => {
      seen[`${decisionsOf(yamlOf(shapes)).decide(asked).allowed}`] += 1;
    }),
    { ...RUNS, seed: 1 },
  );
  expect(seen.true).toBeGreaterThan(5);
  expect(seen.false).toBeGreaterThan(5);
});

test("deny wins: a deny of everything leaves nothing allowed, and no allow added to it changes that", () => {
  const shut = "rules: [{ name: shut, deny: {} }]";
  fc.assert(
    fc.property(rules, request, (shapes, asked) => !decisionsOf(shut, yamlOf(shapes)).decide(asked).allowed),
    RUNS,
  );
});

test("one more allow never denies, one more deny never allows", () => {
  fc.assert(
    fc.property(rules, rule, request, (shapes, more, asked) => {
      const before = decisionsOf(yamlOf(shapes)).decide(asked).allowed;
      const after = decisionsOf(yamlOf(shapes), yamlOf([more], "more")).decide(asked).allowed;
      return more.effect === "allow" ? after || !before : before || !after;
    }),
    RUNS,
  );
});

test("the order of rules and files changes nothing", () => {
  fc.assert(
    fc.property(rules, request, (shapes, asked) => {
      const named = shapes.map((shape, index) => yamlOf([shape], `n${index}-`));
      const one = decisionsOf(...named).decide(asked);
      const other = decisionsOf(...named.toReversed()).decide(asked);
      expect({ ...other, id: "", at: "", durationMicros: 0, policyDigest: "" }).toEqual({
        ...one,
        id: "",
        at: "",
        durationMicros: 0,
        policyDigest: "",
      });
    }),
    RUNS,
  );
});

test("no arguments, however odd, get more than the same rules without conditions on the allows and without denies would give", () => {
  fc.assert(
    fc.property(rules, request, (shapes, asked) => {
      const bare = shapes.filter(({ effect }) => effect === "allow").map((shape) => ({ ...shape, when: undefined }));
      return !decisionsOf(yamlOf(shapes)).decide(asked).allowed || decisionsOf(yamlOf(bare)).decide(asked).allowed;
    }),
    RUNS,
  );
});

test("the index finds what a look at every rule finds", () => {
  fc.assert(
    fc.property(rules, request, (shapes, asked) => {
      const { decision, considered } = decisionsOf(yamlOf(shapes)).explain(asked);
      const matched = considered.filter(({ outcome, rule: name }) => outcome === "matched" && name !== "default");
      const denied = considered.some(
        ({ effect, outcome, rule: name }) =>
          effect === "deny" && name !== "default" && (outcome === "matched" || outcome === "condition-error"),
      );
      const allowed = !denied && matched.some(({ effect }) => effect === "allow");
      // Session methods follow from other rules; all else is exactly what the list says.
      if (["initialize", "tools/list"].includes(asked.action.name)) return !allowed || decision.allowed;
      return decision.allowed === allowed;
    }),
    RUNS,
  );
});

test("what widens is called widening: whatever is denied before and allowed after", () => {
  const edit = fc.oneof(
    fc.record({ kind: fc.constant("drop" as const), at: fc.nat(5) }),
    fc.record({ kind: fc.constant("add" as const), rule }),
    fc.record({ kind: fc.constant("replace" as const), at: fc.nat(5), rule }),
  );
  const seen = { narrowed: 0, widened: 0 };
  fc.assert(
    fc.property(rules, edit, fc.array(request, { minLength: 12, maxLength: 12 }), (shapes, change, asked) => {
      const next = [...shapes];
      if (change.kind === "add") next.push(change.rule);
      else if (change.kind === "drop") next.splice(change.at, 1);
      else next.splice(change.at, 1, change.rule);
      const [old, changed] = [yamlOf(shapes), yamlOf(next)];
      const { widened } = diffPolicySets(setOf(old), setOf(changed));
      seen[widened ? "widened" : "narrowed"] += 1;
      const [before, after] = [decisionsOf(old), decisionsOf(changed)];
      return widened || asked.every((one) => before.decide(one).allowed || !after.decide(one).allowed);
    }),
    RUNS,
  );
  expect(seen.narrowed).toBeGreaterThan(5);
  expect(seen.widened).toBeGreaterThan(5);
});

test("what a tool list would show is at least what could be called", () => {
  fc.assert(
    fc.property(rules, args, caller, fc.constantFrom("pay", "refund"), (shapes, given, who, tool) => {
      const decisions = decisionsOf(yamlOf(shapes));
      const asked = call(tool, given, who);
      return !decisions.decide(asked).allowed || decisions.couldAllowTool(asked.subject.id, asked.resource.id, tool);
    }),
    RUNS,
  );
});
