import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { AccessRequest } from "../../src/policy/access-request.js";
import type { PolicyEngine, Verdict } from "../../src/policy/engine.js";
import { parseLimit } from "../../src/policy/limit.js";
import { createLimitCounts } from "../../src/policy/limit-counts.js";
import { runs } from "../properties.js";
import { call, decisionsWith, message, type RulesAlone, shop } from "./shop.js";

/** A clock that tests move. */
function movable(start = Date.UTC(2025, 0, 15, 12)) {
  let now = start;
  return {
    now: () => now,
    after: () => () => {},
    pass: (seconds: number) => {
      now += seconds * 1000;
    },
  };
}
const allow = (more: string, name = "a") =>
  `rules: [{ name: ${name}, allow: { from: agents/*, to: payments }, ${more} }]`;
const asked = (decisions: RulesAlone, times: number, request: AccessRequest = call("x")) =>
  Array.from({ length: times }, () => decisions.decide(request).allowed);
const withUser = (user: string): AccessRequest => ({ ...call("x"), context: { user } });

describe("a limit", () => {
  test("lets through as many as it says, then refuses with the time to wait, and gives again", () => {
    const clock = movable();
    const decisions = decisionsWith({ clock }, allow("limit: 3 per minute"));
    expect(asked(decisions, 3)).toEqual([true, true, true]);
    const refused = decisions.decide(call("x"));
    expect(refused).toMatchObject({ allowed: false, rule: "a", conditional: true, retryAfterMs: 20_000 });
    expect(refused.reason).toBe("a allows 3 per minute for each identity: ask again in 20 s");
    clock.pass(19);
    expect(decisions.decide(call("x")).allowed).toBe(false);
    clock.pass(2);
    expect(asked(decisions, 2)).toEqual([true, false]);
    clock.pass(3600);
    expect(asked(decisions, 4)).toEqual([true, true, true, false]);
  });

  test("doubles the wait of whoever goes on asking, up to the longest", () => {
    const clock = movable();
    const decisions = decisionsWith(
      { clock },
      allow("limit: { rate: 100, per: second, burst: 1, backoff: { first: 2s, max: 9s } }"),
    );
    expect(decisions.decide(call("x")).allowed).toBe(true);
    const waits = Array.from({ length: 5 }, () => decisions.decide(call("x")).retryAfterMs);
    expect(waits).toEqual([2000, 4000, 8000, 9000, 9000]);
    clock.pass(8.9);
    expect(decisions.decide(call("x")).allowed).toBe(false);
    clock.pass(9.1);
    expect(decisions.decide(call("x")).allowed).toBe(true);
    expect(decisions.decide(call("x")).retryAfterMs).toBe(2000);
  });

  test("counts each identity, tool, user or service apart, as it says", () => {
    const each = (keys: string) => decisionsWith({}, allow(`limit: { rate: 1, per: day, for: ${keys} }`));
    const twice = (keys: string, one: AccessRequest, other: AccessRequest) => {
      const decisions = each(keys);
      return [decisions.decide(one).allowed, decisions.decide(other).allowed];
    };
    const [billing, planner] = [call("x"), call("x", {}, "agents/planner")];
    expect(twice("identity", billing, billing)).toEqual([true, false]);
    expect(twice("identity", billing, planner)).toEqual([true, true]);
    expect(twice("identity", billing, call("y"))).toEqual([true, false]);
    expect(twice("tool", billing, planner)).toEqual([true, false]);
    expect(twice("tool", billing, call("y"))).toEqual([true, true]);
    expect(twice("[identity, tool]", billing, call("y"))).toEqual([true, true]);
    expect(twice("[identity, tool]", billing, billing)).toEqual([true, false]);
    expect(twice("user", withUser("alice"), withUser("bob"))).toEqual([true, true]);
    expect(twice("user", withUser("alice"), withUser("alice"))).toEqual([true, false]);
    // Calls for nobody in particular are counted together, so leaving out the user is no way around.
    expect(twice("user", billing, billing)).toEqual([true, false]);
    expect(twice("service", billing, planner)).toEqual([true, false]);
  });

  test("of a match rule holds whichever rule allows, and gives nothing by itself", () => {
    const match =
      "rules: [{ name: pace, match: { from: agents/*, to: payments }, limit: 2 per minute, message: Slow down. }]";
    const decisions = decisionsWith({}, match, allow("description: x"));
    expect(asked(decisions, 3)).toEqual([true, true, false]);
    expect(decisions.decide(call("x"))).toMatchObject({ rule: "pace", at: "policies/0.yaml:1", message: "Slow down." });
    expect(decisionsWith({}, match).decide(call("x"))).toMatchObject({ allowed: false, rule: "default" });
  });

  test("is not counted by explain, nor where anything else denies", () => {
    const decisions = decisionsWith({}, allow("limit: 1 per day"));
    for (let i = 0; i < 5; i += 1) expect(decisions.explain(call("x")).decision.allowed).toBe(true);
    expect(asked(decisions, 2)).toEqual([true, false]);
    const wait = decisions.explain(call("x")).decision.retryAfterMs;
    expect(decisions.explain(call("x")).decision.retryAfterMs).toBe(wait);

    let permits = false;
    const other = decisionsWith({ engines: [engine(() => permits)] }, allow("limit: 1 per day"));
    expect(asked(other, 3)).toEqual([false, false, false]);
    permits = true;
    expect(asked(other, 2)).toEqual([true, false]);

    const denied = `${allow("limit: 1 per day")}\n`;
    const closed = "rules: [{ name: no, deny: {}, when: has(args.no) }]";
    const both = decisionsWith({}, denied, closed);
    expect(asked(both, 3, call("x", { no: 1 }))).toEqual([false, false, false]);
    expect(asked(both, 2)).toEqual([true, false]);
  });

  test("counts a call once although the agent that launched the caller is asked about too", () => {
    const decisions = decisionsWith({}, allow("limit: { rate: 2, per: day, for: service }"));
    const request = call("x", {}, "agents/planner");
    const launched = {
      ...request,
      subject: { ...request.subject, properties: { launched_by: ["spiffe://shop.local/agents/billing"] } },
    };
    expect(asked(decisions, 3, launched)).toEqual([true, true, false]);
  });

  test("of an agent holds for what it has launched: helpers are no way around it", () => {
    const decisions = decisionsWith({}, allow("limit: 2 per day"));
    const from = (caller: string): AccessRequest => {
      const request = call("x", {}, caller);
      const properties = { launched_by: ["spiffe://shop.local/agents/billing"] };
      return { ...request, subject: { ...request.subject, properties } };
    };
    expect(decisions.decide(call("x")).allowed).toBe(true);
    expect(asked(decisions, 1, from("agents/planner"))).toEqual([true]);
    expect(decisions.decide(from("agents/planner"))).toMatchObject({ allowed: false, rule: "a", conditional: true });
    expect(decisions.decide(call("x", {}, "agents/planner")).allowed).toBe(true);
  });

  test("goes on over a reload, also under new numbers, and not under another name", () => {
    const clock = movable();
    const limits = createLimitCounts(clock);
    const world = { clock, limits };
    expect(asked(decisionsWith(world, allow("limit: 2 per day")), 2)).toEqual([true, true]);
    expect(asked(decisionsWith(world, allow("limit: 2 per day, message: x")), 1)).toEqual([false]);
    expect(asked(decisionsWith(world, allow("limit: 5 per day")), 1)).toEqual([false]);
    expect(asked(decisionsWith(world, allow("limit: 2 per day", "b")), 1)).toEqual([true]);
  });

  test("a clock that is set back gives nothing and takes no more than the longest wait; one set forward gives the burst", () => {
    const clock = movable();
    const decisions = decisionsWith({ clock }, allow("limit: { rate: 2, per: minute, backoff: { max: 1m } }"));
    expect(asked(decisions, 3)).toEqual([true, true, false]);
    clock.pass(-86_400);
    expect(decisions.decide(call("x")).allowed).toBe(false);
    clock.pass(62);
    expect(decisions.decide(call("x")).allowed).toBe(true);
    clock.pass(10 * 365 * 86_400);
    expect(asked(decisions, 3)).toEqual([true, true, false]);
  });
});

describe("memory for counts", () => {
  const limit = parseLimit({ rate: 1, per: "hour", for: ["identity", "tool"] });

  test("is bounded, and no flood makes it forget a debt", () => {
    const clock = movable();
    const limits = createLimitCounts(clock, 1);
    const common = parseLimit({ rate: 1, per: "hour", for: "tool" });
    const debt = () => limits.draw("a", common, "somebody", ["victim"]);
    debt().take();
    expect(debt().waitMs()).toBeGreaterThan(0);
    for (let i = 0; i < 10_000; i += 1) limits.draw("a", common, `flood ${i}`, [`flood ${i}`]).take();
    expect(limits.size).toBe(4_096 + 1);
    expect(debt().waitMs()).toBeGreaterThan(0);
    expect(limits.draw("b", common, "somebody", ["victim"]).waitMs()).toBe(0);
  });

  test("one caller crowds only its own part: others still have counts of their own", () => {
    const clock = movable();
    const limits = createLimitCounts(clock, 1);
    for (let i = 0; i < 10_000; i += 1) limits.draw("a", limit, "flood", ["flood", `tool ${i}`]).take();
    expect(limits.draw("a", limit, "flood", ["flood", "new"]).waitMs()).toBeGreaterThan(0);
    const others = Array.from({ length: 64 }, (_, i) =>
      limits.draw("a", limit, `other ${i}`, [`other ${i}`, "t"]).waitMs(),
    );
    expect(others.filter((wait) => wait === 0).length).toBeGreaterThan(48);
  });

  test("what is full again is forgotten, and makes room", () => {
    const clock = movable();
    const limits = createLimitCounts(clock, 1);
    for (let i = 0; i < 6_000; i += 1) limits.draw("a", limit, "flood", ["flood", `tool ${i}`]).take();
    const crowded = limits.size;
    clock.pass(7_200);
    for (let i = 0; i < 40; i += 1) limits.draw("a", limit, "flood", ["flood", `new ${i}`]).take();
    expect(limits.size).toBeLessThanOrEqual(crowded);
    expect(limits.draw("a", limit, "flood", ["flood", "new 39"]).waitMs()).toBeGreaterThan(0);
    expect(limits.draw("a", limit, "flood", ["flood", "newest"]).waitMs()).toBe(0);
  });
});

describe("an obligation", () => {
  test("comes with the allow that decides and with every match rule, each once", () => {
    const rules = [
      allow("require: [approval, { type: notify, id: n, properties: { to: ops } }]"),
      "rules: [{ name: care, match: { to: payments }, require: [{ type: notify, id: n, properties: { to: ops } }, log] }]",
    ];
    expect(decisionsWith({}, ...rules).decide(call("x"))).toMatchObject({
      allowed: true,
      obligations: [
        { id: "a/approval", type: "approval" },
        { id: "n", type: "notify", properties: { to: "ops" } },
        { id: "care/log", type: "log" },
      ],
    });
    expect(decisionsWith({}, ...rules).decide(message("resources/list", "mcp/payments"))).toMatchObject({
      allowed: false,
      obligations: [],
    });
  });

  test("binds only where no other rule allows without it, and a limit that is empty hands on to the next rule", () => {
    const plain = "rules: [{ name: z, allow: { from: agents/billing, to: payments } }]";
    expect(decisionsWith({}, allow("require: [approval]"), plain).decide(call("x"))).toMatchObject({
      rule: "z",
      obligations: [],
    });
    const limited = "rules: [{ name: b, allow: { from: agents/billing, to: payments }, limit: 1 per day }]";
    const decisions = decisionsWith({}, allow("require: [approval]"), limited);
    expect(decisions.decide(call("x"))).toMatchObject({ allowed: true, rule: "b", obligations: [] });
    expect(decisions.decide(call("x"))).toMatchObject({
      allowed: true,
      rule: "a",
      obligations: [{ type: "approval" }],
    });
  });
});

describe("shadow", () => {
  const shadowed = (rule: string) => `rules: [{ ${rule}, shadow: true }]`;
  test("a rule is reported with what it would have done, and does nothing", () => {
    const deny = decisionsWith({}, allow("description: x"), shadowed("name: s, deny: { tools: x }"));
    expect(deny.decide(call("x"))).toMatchObject({
      allowed: true,
      shadow: [{ rule: "s", effect: "deny", would: "deny", differs: true, reason: "denied by s" }],
    });
    expect(deny.decide(call("y"))).not.toHaveProperty("shadow");
    const more = decisionsWith({}, shadowed("name: s, allow: { from: '**', to: payments }"));
    expect(more.decide(call("x"))).toMatchObject({
      allowed: false,
      rule: "default",
      shadow: [{ rule: "s", would: "allow", differs: true }],
    });
    expect(more.couldAllowTool(call("x").subject.id, call("x").resource.id, "x")).toBe(false);
    expect(more.couldReach(call("x").subject.id, call("x").resource.id)).toBe(false);
    const both = decisionsWith({}, allow("description: x"), shadowed("name: s, allow: { from: '**', to: payments }"));
    expect(both.decide(call("x")).shadow).toMatchObject([{ rule: "s", would: "allow", differs: false }]);
    const required = decisionsWith({}, allow("description: x"), shadowed("name: s, match: {}, require: [approval]"));
    expect(required.decide(call("x"))).toMatchObject({
      obligations: [],
      shadow: [{ would: "require", differs: true }],
    });
  });

  test("a limit counts in shadow, and refuses nobody", () => {
    const decisions = decisionsWith({}, allow("description: x"), shadowed("name: s, match: {}, limit: 1 per day"));
    expect(decisions.decide(call("x"))).not.toHaveProperty("shadow");
    expect(decisions.decide(call("x"))).toMatchObject({
      allowed: true,
      shadow: [{ rule: "s", would: "deny", differs: true }],
    });
  });

  test("a whole file can be in shadow", () => {
    const file = "shadow: true\nrules: [{ name: s, allow: { from: '**', to: payments } }]";
    const { decision, considered } = decisionsWith({}, file).explain(call("x"));
    expect(decision).toMatchObject({ allowed: false, shadow: [{ rule: "s", would: "allow" }] });
    expect(considered).toMatchObject([{ rule: "s", outcome: "matched", shadow: true }, { rule: "default" }]);
  });

  test("an identity is let do what no rule allows, and nothing that a rule denies", () => {
    const names = { ...shop, withInstances: ["agents/billing"], shadowed: ["agents/billing"] };
    const rules = [
      "rules: [{ name: small, allow: { from: agents/*, to: payments, tools: pay }, when: args.amount < 10 }]",
      "rules: [{ name: never, deny: { tools: drop } }, { name: pace, match: { tools: many }, limit: 1 per day }]",
    ];
    const decisions = decisionsWith({ names }, ...rules);
    expect(decisions.decide(call("x"))).toMatchObject({
      allowed: true,
      rule: "default",
      reason: "let through in shadow: no rule allows agents/billing x at mcp/payments",
      shadow: [{ rule: "default", would: "deny", differs: true }],
    });
    expect(decisions.decide(call("pay", { amount: 20 }))).toMatchObject({ allowed: true, shadow: [{ rule: "small" }] });
    expect(decisions.decide(call("pay", { amount: 2 }))).not.toHaveProperty("shadow");
    expect(decisions.decide(call("x", {}, "agents/billing/one")).allowed).toBe(true);
    expect(decisions.decide(call("drop"))).toMatchObject({ allowed: false, rule: "never" });
    expect(asked(decisions, 2, call("many"))).toEqual([true, false]);
    expect(decisions.decide(call("x", {}, "agents/planner")).allowed).toBe(false);
    expect(decisions.couldAllowTool(call("x").subject.id, call("x").resource.id, "x")).toBe(true);
    expect(decisions.couldAllowTool(call("x").subject.id, call("x").resource.id, "drop")).toBe(false);
    expect(decisions.couldReach(call("x").subject.id, call("x").resource.id)).toBe(true);
    // What cannot be read is denied whoever asks.
    expect(decisions.decide({ ...call("x"), action: { name: "" } }).allowed).toBe(false);
    const other = decisionsWith({ names, engines: [engine(() => false)] }, ...rules);
    expect(other.decide(call("x")).allowed).toBe(false);
  });
});

function engine(permits: () => boolean): PolicyEngine {
  const verdict = (): Verdict => ({
    ...{ allowed: permits(), rule: "other", at: undefined, reason: "as it likes", message: undefined },
    ...{ values: {}, conditional: false, obligations: [] },
  });
  return {
    ...{ name: "other", digest: "0", isAsked: () => true, judge: verdict, consider: () => [] },
    couldAllow: () => true,
  };
}

test("two calls are counted together only where all that they are counted by is the same", () => {
  const limits = createLimitCounts({ now: () => 0, after: () => () => {} });
  const limit = parseLimit({ rate: 1, per: "minute", for: ["identity", "tool"] });
  const part = fc.string({ unit: fc.constantFrom("1", "2", ":", "a"), maxLength: 3 });
  const between = fc.constantFrom("", ":", "\0", '","', " ");
  fc.assert(
    fc.property(part, part, part, between, (first, second, third, separator) => {
      // What could be taken for one another where values are joined.
      const one = [`${first}${separator}${second}`, third];
      const other = [first, `${second}${separator}${third}`];
      const [a, b] = [one, other].map((each) => limits.draw("rule", limit, "owner", each).key);
      expect(a === b).toBe(one[0] === other[0] && one[1] === other[1]);
      expect(limits.draw("another rule", limit, "owner", one).key).not.toBe(a);
    }),
    { numRuns: runs(1_000) },
  );
});
