import fc from "fast-check";
import { expect, test } from "vitest";
import { stringify } from "yaml";
import type { AccessRequest, Decision } from "../../src/policy/access-request.js";
import { diffPolicySets } from "../../src/policy/policy-diff.js";
import type { PolicyNames } from "../../src/policy/policy-names.js";
import { runs } from "../properties.js";
import { call, decisionsIn, decisionsWith, http, id, message, setWith, shop } from "./shop.js";

/** The properties of the long form, over few names, so that rules and requests meet often. */
const names: PolicyNames = {
  ...shop,
  labels: new Map([["agents/billing", { team: "finance" }]]),
  services: shop.services.map((service) => ({ ...service, labels: { data: service.name } })),
};
const entities = `entities:
  - { type: user, id: alice, properties: { role: admin, groups: [a, b] } }
  - { type: user, id: bob, properties: { role: user } }
  - { type: record, id: r1, properties: { status: active } }
  - { type: record, id: r2, properties: { status: archived } }
`;
const world = { names, entities };

const someOf = (values: string[]) =>
  fc.oneof(fc.constantFrom(...values), fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 2 }));
/** Mostly absent: a rule that asks for everything at once is met by nothing. */
const optional = <Value>(value: fc.Arbitrary<Value>) =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value });
/** Mappings without the members that are undefined. */
const record = (model: Record<string, fc.Arbitrary<unknown>>) =>
  fc.record(model).map((made) => Object.fromEntries(Object.entries(made).filter(([, value]) => value !== undefined)));

const facts = {
  evidence: optional(someOf(["launch", "weak", "kernel"])),
  user: optional(
    fc.oneof(someOf(["alice", "bob", "*", "a*"]), record({ properties: record({ role: someOf(["admin", "user"]) }) })),
  ),
  actors: optional(someOf(["agents/billing", "agents/planner", "agents/*"])),
};
const identitySubject = fc.oneof(
  record({ id: fc.constantFrom("**", "agents/*", "agents/billing", ["agents/planner", "agents/billing"]), ...facts }),
  record({ labels: fc.constant({ team: "finance" }), ...facts }),
);
const entitySubject = record({
  type: fc.constant("user"),
  id: optional(someOf(["alice", "bob", "b*"])),
  user: facts.user,
  properties: optional(record({ role: someOf(["admin", "user"]) })),
});
const serviceResource = fc.oneof(
  record({ server: fc.constantFrom("payments", "mcp/*", "payments"), tool: optional(someOf(["pay", "pa*", "*"])) }),
  record({ server: fc.constant("payments"), resource: someOf(["file:///a", "file:///a/*", "file:///**"]) }),
  record({ server: fc.constant("payments"), prompt: someOf(["review", "re*"]) }),
  record({ service: fc.constant("invoices"), path: optional(someOf(["/a", "/a/*", "/**"])) }),
  record({ type: fc.constantFrom("http", "mcp", "mcp-tool"), id: fc.constantFrom("payments", "invoices") }),
  record({ labels: record({ data: someOf(["payments", "invoices"]) }) }),
);
const entityResource = record({
  type: fc.constant("record"),
  id: optional(someOf(["r1", "r2", "r*"])),
  properties: optional(record({ status: someOf(["active", "archived"]) })),
});
const moment = {
  context: optional(record({ channel: someOf(["cli", "web"]) })),
  time: optional(
    fc.constantFrom({ days: "mon-fri" }, { days: "sat,sun" }, { hours: "09:00-17:00" }, { after: "2025-02-01" }),
  ),
};
const scope = fc.oneof(
  record({ subject: identitySubject, resource: serviceResource, ...moment }),
  record({
    subject: fc.oneof(identitySubject, entitySubject),
    action: optional(
      fc.oneof(someOf(["read", "write", "r*"]), record({ properties: record({ soft: fc.constant(true) }) })),
    ),
    resource: entityResource,
    ...moment,
  }),
  record({ subject: entitySubject, resource: serviceResource, ...moment }),
);
const conditions = [
  "args.amount <= 10",
  "user.id == 'alice'",
  "size(actors) == 1",
  "context.channel == 'cli'",
  "subject.properties.role == 'admin'",
  "resource.properties.status != 'archived'",
];

interface Shape {
  readonly effect: "allow" | "deny" | "match";
  readonly scope: object;
  readonly when: string | undefined;
  readonly shadow: boolean;
  readonly require: string[] | undefined;
  readonly limit: string | undefined;
}
const shape: fc.Arbitrary<Shape> = fc
  .record({
    effect: fc.constantFrom("allow", "allow", "allow", "deny", "match"),
    scope,
    when: optional(fc.constantFrom(...conditions)),
    shadow: fc.integer({ min: 0, max: 9 }).map((n) => n < 2),
    require: optional(fc.uniqueArray(fc.constantFrom("approval", "log"), { minLength: 1 })),
    limit: optional(fc.constantFrom("1 per day", "2 per day")),
  })
  .map(({ require: requires, limit, ...rest }): Shape => {
    if (rest.effect === "deny") return { ...rest, effect: "deny", require: undefined, limit: undefined };
    if (rest.effect === "match") return { ...rest, effect: "match", require: requires, limit: limit ?? "2 per day" };
    return { ...rest, effect: "allow", require: requires, limit };
  });
const shapes = fc.array(shape, { minLength: 2, maxLength: 7 });
const yamlOf = (given: readonly Shape[], prefix = "r") =>
  stringify({
    rules: given.map(({ effect, scope: made, ...rest }, index) => ({
      name: `${prefix}${index}`,
      [effect]: made,
      ...Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined && value !== false)),
    })),
  });

const odd = fc.constantFrom<unknown>(
  undefined,
  null,
  1,
  "",
  "alice",
  "bob",
  {},
  { id: "bob", properties: { role: "admin" } },
  { id: 1 },
  [],
  { id: "alice", properties: 1 },
);
const context = fc
  .record({
    user: fc.oneof({ weight: 5, arbitrary: fc.constantFrom("alice", undefined) }, { weight: 1, arbitrary: odd }),
    actors: fc.oneof(
      { weight: 5, arbitrary: fc.constantFrom<unknown>(undefined, [id("agents/billing")]) },
      {
        weight: 1,
        arbitrary: fc.constantFrom<unknown>(
          undefined,
          [],
          [id("agents/billing")],
          [id("agents/planner"), "x"],
          "x",
          [1],
          [id("agents/planner"), id("agents/billing")],
        ),
      },
    ),
    channel: fc.constantFrom<unknown>(undefined, "cli", "web", 1, ["cli"]),
  })
  .map((made) => Object.fromEntries(Object.entries(made).filter(([, value]) => value !== undefined)));
const aboutService = fc.oneof(
  fc
    .tuple(fc.constantFrom("pay", "refund", "x"), fc.constantFrom({}, { amount: 5 }, { amount: "x" }))
    .map(([tool, args]) => call(tool, args)),
  fc.constantFrom("/a", "/a/b").map((path) => http("GET", path)),
  fc
    .tuple(
      fc.constantFrom("resources/read", "prompts/get"),
      fc.constantFrom<object>(
        { uri: "file:///a" },
        { uri: "file:///a/b" },
        { uri: "file:///a/../b" },
        { uri: 1 },
        { name: "review" },
        {},
      ),
    )
    .map(([method, args]) => ({ ...message(method), context: { args } })),
);
const properties = fc.constantFrom<object | undefined>(
  undefined,
  {},
  { role: "admin" },
  { status: "archived", role: "user" },
  { role: ["admin"] },
  { evidence: "launch" },
);
const request: fc.Arbitrary<AccessRequest> = fc
  .tuple(
    fc.oneof(
      fc
        .constantFrom("agents/billing", "agents/billing", "agents/planner")
        .map((name) => ({ type: "spiffe", id: id(name) })),
      fc.constantFrom("alice", "alice", "bob", "carol").map((name) => ({ type: "user", id: name })),
    ),
    properties,
    fc.oneof(
      aboutService,
      fc
        .tuple(fc.constantFrom("read", "write"), fc.constantFrom("r1", "r2", "r9"), properties, fc.boolean())
        .map(([name, which, known, soft]) => ({
          action: { name, properties: { soft } },
          resource: { type: "record", id: which, ...(known !== undefined && { properties: known as never }) },
        })),
    ),
    context,
  )
  .map(([subject, known, asked, more]) => ({
    ...asked,
    subject: { ...subject, ...(known !== undefined && { properties: known as never }) },
    context: { ...("context" in asked ? asked.context : {}), ...more },
  }));

const RUNS = { numRuns: runs(100) };
const decide = (asked: AccessRequest, ...texts: string[]) => decisionsWith(world, ...texts).decide(asked);
const answerOf = ({ id: _id, durationMicros: _took, policyDigest: _set, at: _at, shadow, ...rest }: Decision) => ({
  ...rest,
  shadow: shadow?.map(({ at: _place, ...one }) => one),
});

test("some of what is generated is allowed, some denied, and some rules are in shadow: the properties are not empty", () => {
  const seen = { allowed: 0, denied: 0, shadow: 0, obliged: 0, limited: 0 };
  fc.assert(
    fc.property(shapes, request, (given, asked) => {
      const decisions = decisionsWith(world, yamlOf(given));
      const decision = decisions.decide(asked);
      seen[decision.allowed ? "allowed" : "denied"] += 1;
      if (decision.shadow !== undefined) seen.shadow += 1;
      if (decision.obligations.length > 0) seen.obliged += 1;
      decisions.decide(asked);
      if (decisions.decide(asked).retryAfterMs !== undefined) seen.limited += 1;
    }),
    { numRuns: 250, seed: 1 },
  );
  const { allowed, denied, ...rest } = seen;
  expect(Math.min(allowed, denied)).toBeGreaterThan(10);
  for (const count of Object.values(rest)) expect(count).toBeGreaterThan(1);
});

test("deny wins: a deny of everything leaves nothing allowed", () => {
  const shut = "rules: [{ name: shut, deny: {} }]";
  fc.assert(
    fc.property(shapes, request, (given, asked) => !decide(asked, shut, yamlOf(given)).allowed),
    RUNS,
  );
});

test("one more allow never denies and never obliges to more; one more deny, limit or obligation never allows", () => {
  fc.assert(
    fc.property(shapes, shape, request, (given, more, asked) => {
      const before = decide(asked, yamlOf(given));
      const after = decide(asked, yamlOf(given), yamlOf([more], "more"));
      if (more.shadow) return before.allowed === after.allowed;
      if (more.effect !== "allow") return before.allowed || !after.allowed;
      return !before.allowed || (after.allowed && after.obligations.length <= before.obligations.length);
    }),
    RUNS,
  );
});

test("one more allow never makes a call wait that did not: over a row of calls at least as many are let through", () => {
  fc.assert(
    fc.property(shapes, shape, request, (given, more, asked) => {
      fc.pre(more.effect === "allow");
      const through = (...texts: string[]) => {
        const decisions = decisionsWith(world, ...texts);
        return Array.from({ length: 6 }, () => decisions.decide(asked)).filter(({ allowed }) => allowed).length;
      };
      return through(yamlOf(given), yamlOf([more], "more")) >= through(yamlOf(given));
    }),
    RUNS,
  );
});

test("the order of rules and files changes nothing", () => {
  fc.assert(
    fc.property(shapes, request, (given, asked) => {
      const files = given.map((one, index) => yamlOf([one], `n${index}-`));
      expect(answerOf(decide(asked, ...files.toReversed()))).toEqual(answerOf(decide(asked, ...files)));
    }),
    RUNS,
  );
});

test("nothing odd in a request gets more than the same rules without terms and conditions on the allows and without denies", () => {
  const bareScope = (made: object) => {
    const { subject, resource, action } = made as Record<string, Record<string, unknown> | undefined>;
    const { evidence: _e, user: _u, actors: _a, properties: _p, ...who } = subject ?? {};
    const { properties: _q, ...what } = resource ?? {};
    const named = typeof action === "object" && !Array.isArray(action) ? undefined : action;
    return { subject: who, resource: what, ...(named !== undefined && { action: named }) };
  };
  fc.assert(
    fc.property(shapes, request, (given, asked) => {
      const bare = given
        .filter(({ effect, shadow }) => effect === "allow" && !shadow)
        .map((one) => ({ ...one, scope: bareScope(one.scope), when: undefined, limit: undefined, require: undefined }));
      return !decide(asked, yamlOf(given)).allowed || decide(asked, yamlOf(bare)).allowed;
    }),
    RUNS,
  );
});

test("explain answers as decide does, and the rules that it lists say why", () => {
  fc.assert(
    fc.property(shapes, request, (given, asked) => {
      const decisions = decisionsWith(world, yamlOf(given));
      const { decision, considered } = decisions.explain(asked);
      expect(answerOf(decisions.decide(asked))).toEqual({ ...answerOf(decision) });
      const inForce = considered.filter(({ shadow, rule }) => shadow !== true && rule !== "default");
      const struck = inForce.some(
        ({ effect, outcome }) => effect === "deny" && ["matched", "condition-error"].includes(outcome),
      );
      const granted = inForce.some(({ effect, outcome }) => effect === "allow" && outcome === "matched");
      if (decision.allowed) return granted && !struck;
      return true;
    }),
    RUNS,
  );
});

test("rules in shadow change no answer", () => {
  fc.assert(
    fc.property(shapes, request, (given, asked) => {
      const { shadow: _with, ...all } = answerOf(decide(asked, yamlOf(given)));
      const silent = given.map((one, index) => ({ one, index })).filter(({ one }) => !one.shadow);
      const { shadow: _without, ...rest } = answerOf(
        decide(asked, ...silent.map(({ one, index }) => yamlOf([one], `r${index}-`))),
      );
      return all.allowed === rest.allowed && all.obligations.length === rest.obligations.length;
    }),
    RUNS,
  );
});

test("what widens is called widening: whatever is denied before and allowed, or allowed with less asked, after", () => {
  const edit = fc.oneof(
    fc.record({ kind: fc.constant("drop" as const), at: fc.nat(4) }),
    fc.record({ kind: fc.constant("add" as const), rule: shape }),
    fc.record({ kind: fc.constant("replace" as const), at: fc.nat(4), rule: shape }),
    fc.record({
      kind: fc.constant("touch" as const),
      at: fc.nat(4),
      rule: shape,
      part: fc.constantFrom("when", "shadow", "require", "limit", "scope"),
    }),
  );
  const seen = { narrowed: 0, widened: 0 };
  fc.assert(
    fc.property(shapes, edit, fc.array(request, { minLength: 8, maxLength: 8 }), (given, change, asked) => {
      const next = [...given];
      const old = next[change.kind === "add" ? 0 : change.at];
      if (change.kind === "add") next.push(change.rule);
      else if (change.kind === "drop") next.splice(change.at, 1);
      else if (change.kind === "replace" || old === undefined) next.splice(change.at, 1, change.rule);
      else if (old.effect === "deny" && ["require", "limit"].includes(change.part)) next.splice(change.at, 1);
      else if (old.effect === "match" && change.part === "limit" && change.rule.limit === undefined)
        next.splice(change.at, 1);
      else next.splice(change.at, 1, { ...old, [change.part]: change.rule[change.part as keyof Shape] });
      const sets = [setWith(world, yamlOf(given)), setWith(world, yamlOf(next))] as const;
      const { widened } = diffPolicySets(...sets);
      seen[widened ? "widened" : "narrowed"] += 1;
      if (widened) return true;
      return asked.every((one) => {
        // Limits of its own for each call: a call that is denied since leaves its token to others, which is no widening.
        const [before, after] = [decisionsIn(sets[0]), decisionsIn(sets[1])];
        return [1, 2, 3].every(() => {
          const [was, is] = [before.decide(one), after.decide(one)];
          if (!is.allowed) return true;
          return was.allowed && is.obligations.length >= was.obligations.length;
        });
      });
    }),
    RUNS,
  );
  expect(seen.narrowed).toBeGreaterThan(5);
  expect(seen.widened).toBeGreaterThan(5);
});

test("what a tool list would show is at least what could be called", () => {
  fc.assert(
    fc.property(shapes, request, (given, asked) => {
      const tool = asked.resource.properties?.tool;
      fc.pre(typeof tool === "string" && asked.subject.type === "spiffe");
      const decisions = decisionsWith(world, yamlOf(given));
      return (
        !decisions.decide(asked).allowed ||
        decisions.couldAllowTool(asked.subject.id, asked.resource.id, tool as string)
      );
    }),
    RUNS,
  );
});
