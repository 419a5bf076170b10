import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { AccessRequest, Decision, Obligation } from "../../src/policy/access-request.js";
import { createDecisionPoint } from "../../src/policy/decision-point.js";
import type { Enforcement } from "../../src/policy/enforcement.js";
import type { PolicyEngine, Verdict } from "../../src/policy/engine.js";
import { createLimitCounts } from "../../src/policy/limit-counts.js";
import { withdraw } from "../../src/policy/settlement.js";
import { runs } from "../properties.js";
import { call, decisionsWith, setWith } from "./shop.js";

const meeting = (...types: readonly string[]): Enforcement => ({
  meets: (type) => types.includes(type),
  shortfall: "which nobody here knows",
});
const NOTHING = meeting();

/** A clock that tests move. */
function movable() {
  let now = Date.UTC(2025, 0, 15, 12);
  return {
    now: () => now,
    after: () => () => {},
    pass: (seconds: number) => {
      now += seconds * 1000;
    },
  };
}

function engine(name: string, judge: (request: AccessRequest) => Verdict | Promise<Verdict>): PolicyEngine {
  return { name, digest: name, isAsked: () => true, judge, consider: () => [], couldAllow: () => true };
}

function says(allowed: boolean, ...types: readonly string[]): Verdict {
  const obligations: readonly Obligation[] = types.map((type) => ({ id: type, type }));
  return {
    ...{ allowed, rule: "other", at: undefined, reason: "as it likes", message: undefined },
    ...{ values: {}, conditional: false, obligations },
  };
}

describe("an obligation that the enforcement point does not meet", () => {
  const once = "rules: [{ name: a, allow: { from: agents/*, to: payments }, require: [approval], limit: 1 per day }]";

  test("denies before a limit is asked: no token, no longer wait", () => {
    const decisions = decisionsWith({}, once);
    for (let i = 0; i < 5; i += 1) {
      expect(decisions.decide(call("x"), NOTHING)).toMatchObject({
        ...{ allowed: false, rule: "a", conditional: true, obligations: [] },
        reason: "a requires approval, which nobody here knows",
      });
    }
    expect(decisions.decide(call("x"), meeting("approval"))).toMatchObject({
      allowed: true,
      obligations: [{ type: "approval" }],
    });
    // Nor where the limit is empty: it is the obligation that is in the way, now and later.
    expect(decisions.decide(call("x"), NOTHING).retryAfterMs).toBeUndefined();
    expect(decisions.decide(call("x"), meeting("approval")).retryAfterMs).toBe(86_400_000);
  });

  test("is named together with the rule that asks for it, and with that rule's message", () => {
    const plain = "rules: [{ name: plain, allow: { from: agents/*, to: payments } }]";
    const care =
      "rules: [{ name: care, match: { tools: x }, require: [log, { type: step-up, id: s }], message: Ask the lead. }]";
    const decisions = decisionsWith({}, plain, care);
    expect(decisions.decide(call("x"), meeting("log"))).toMatchObject({
      ...{ allowed: false, rule: "care", at: "policies/1.yaml:1", message: "Ask the lead." },
      reason: "care requires step-up, which nobody here knows",
    });
    expect(decisions.decide(call("y"), NOTHING)).toMatchObject({ allowed: true, rule: "plain" });
    expect(decisions.decide(call("x"), meeting("log", "step-up")).allowed).toBe(true);
  });

  test("of another engine denies in that engine's name, of whoever stands above the caller in its", () => {
    const plain = "rules: [{ name: plain, allow: { from: '**', to: payments }, limit: 1 per day }]";
    const lead = "spiffe://shop.local/agents/planner";
    const engines = [engine("finance", ({ subject }) => (subject.id === lead ? says(true, "approval") : says(true)))];
    const decisions = decisionsWith({ engines }, plain);
    const below = call("x");
    const launched = { ...below, subject: { ...below.subject, properties: { launched_by: [lead] } } };
    expect(decisions.decide(launched, NOTHING)).toMatchObject({
      ...{ allowed: false, engine: "finance", deniedAbove: lead },
      reason: "agents/planner, which launched the caller: other requires approval, which nobody here knows",
    });
    expect(decisions.decide(launched, meeting("approval"))).toMatchObject({
      allowed: true,
      obligations: [{ type: "approval" }],
    });
  });

  test("leaves nothing for a rule in shadow to change", () => {
    const closing = "rules: [{ name: closing, deny: { tools: '*' }, shadow: true }]";
    const decisions = decisionsWith({}, once, closing);
    expect(decisions.decide(call("x"), NOTHING).shadow).toMatchObject([{ rule: "closing", differs: false }]);
    expect(decisions.decide(call("x"), meeting("approval")).shadow).toMatchObject([{ rule: "closing", differs: true }]);
  });
});

describe("an allow that nothing comes of", () => {
  const limited = "rules: [{ name: a, allow: { from: agents/*, to: payments }, limit: { rate: 2, per: day } }]";

  test("gives back what it took, once", () => {
    const decisions = decisionsWith({}, limited);
    const first = decisions.decide(call("x"));
    const second = decisions.decide(call("x"));
    withdraw(second);
    withdraw(second);
    withdraw({ ...first });
    expect([1, 2].map(() => decisions.decide(call("x")).allowed)).toEqual([true, false]);
  });

  test("gives nothing back beyond the burst, nor where nothing was taken", () => {
    const clock = movable();
    const decisions = decisionsWith({ clock }, limited);
    const early = decisions.decide(call("x"));
    clock.pass(86_400);
    withdraw(early);
    withdraw(decisions.explain(call("x")).decision);
    expect([1, 2, 3].map(() => decisions.decide(call("x")).allowed)).toEqual([true, true, false]);
  });

  test("does not end the wait of who was refused meanwhile", () => {
    const clock = movable();
    const waits = "limit: { rate: 1000, per: second, burst: 1, backoff: { first: 10s, max: 1h } }";
    const decisions = decisionsWith(
      { clock },
      `rules: [{ name: a, allow: { from: agents/*, to: payments }, ${waits} }]`,
    );
    const taken = decisions.decide(call("x"));
    expect(decisions.decide(call("x")).retryAfterMs).toBe(10_000);
    withdraw(taken);
    expect(decisions.decide(call("x")).retryAfterMs).toBe(20_000);
    clock.pass(20);
    expect(decisions.decide(call("x")).allowed).toBe(true);
  });

  test("is given back under the numbers of a reload in between", () => {
    const clock = movable();
    const limits = createLimitCounts(clock);
    const one = decisionsWith({ clock, limits }, limited).decide(call("x"));
    const narrower = decisionsWith({ clock, limits }, limited.replace("rate: 2", "rate: 1"));
    expect(narrower.decide(call("x")).allowed).toBe(true);
    withdraw(one);
    expect([1, 2].map(() => narrower.explain(call("x")).decision.allowed)).toEqual([true, true]);
    expect(narrower.decide(call("x")).allowed).toBe(true);
    expect(narrower.decide(call("x")).allowed).toBe(false);
  });
});

/** What becomes of a call: what the other engine says of it and when, what the enforcement point can do, whether it acts on an allow. */
interface Attempt {
  readonly tool: string;
  readonly answer: "permit" | "deny" | "oblige" | "throw";
  readonly later: boolean;
  readonly able: boolean;
  readonly acts: boolean;
}
const attempt: fc.Arbitrary<Attempt> = fc.record({
  tool: fc.constantFrom("plain", "careful", "matched", "forbidden"),
  answer: fc.constantFrom("permit", "permit", "deny", "oblige", "throw"),
  later: fc.boolean(),
  able: fc.boolean(),
  acts: fc.boolean(),
});

const RULES = `rules:
  - { name: plain, allow: { from: agents/*, to: payments, tools: [plain, matched, forbidden] } }
  - { name: careful, allow: { from: agents/*, to: payments, tools: careful }, require: [approval] }
  - { name: matched, match: { tools: matched }, require: [approval] }
  - { name: forbidden, deny: { tools: forbidden } }
  - { name: pace, match: { to: payments }, limit: { rate: BURST, per: day, for: service } }
  - { name: shaded, match: { to: payments }, limit: { rate: 1, per: day, for: service }, shadow: true }
`;

test("property: what is left in a limit is the burst less the calls that were permitted and made, however they were interleaved", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(attempt, { maxLength: 12 }), fc.integer({ min: 1, max: 14 }), async (attempts, burst) => {
      const clock = movable();
      let told: Attempt = { tool: "plain", answer: "permit", later: false, able: true, acts: true };
      const verdict = (answer: Attempt["answer"]) => {
        if (answer === "throw") throw new Error("broken");
        return answer === "oblige" ? says(true, "notify") : says(answer === "permit");
      };
      const other = engine("other", () => {
        const { answer, later } = told;
        return later ? Promise.resolve().then(() => verdict(answer)) : verdict(answer);
      });
      const set = setWith({}, RULES.replace("BURST", String(burst)));
      const point = createDecisionPoint(set, { clock, random: randomBytes, engines: [other] });
      const able = meeting("approval", "notify");
      const made = await Promise.all(
        attempts.map(async (each) => {
          told = each;
          const decision: Decision = await point.decide(call(each.tool), each.able ? able : NOTHING);
          const isDeniedOtherwise =
            each.tool === "forbidden" ||
            !(each.answer === "permit" || (each.answer === "oblige" && each.able)) ||
            (each.tool !== "plain" && !each.able);
          if (isDeniedOtherwise) expect(decision).toMatchObject({ allowed: false });
          if (isDeniedOtherwise) expect(decision.retryAfterMs).toBeUndefined();
          if (decision.allowed && !each.acts) withdraw(decision);
          return decision.allowed && each.acts;
        }),
      );
      const spent = made.filter(Boolean).length;
      // Whoever was refused may ask again after that; what is filled up meanwhile is less than one.
      clock.pass(300);
      told = { ...told, answer: "permit", later: false };
      let left = 0;
      while ((await point.decide(call("plain"), able)).allowed) left += 1;
      expect(left).toBe(burst - spent);
    }),
    { numRuns: runs(100) },
  );
});
