import { expect, test } from "vitest";
import { createExplanations, type PolicyInForce } from "../../src/daemon/explanations.js";
import { mcpAccessRequest } from "../../src/policy/access-request-of.js";
import type { DecidedCall } from "../../src/policy/decided-call.js";
import { call, decisionsOf, setOf } from "../policy/shop.js";

const RULES = "rules: [{ name: d, deny: { to: payments } }]";
const madeBy: PolicyInForce = { point: decisionsOf(RULES), set: setOf(RULES) };
const time = new Date(0);

function denied(args: Record<string, unknown>): DecidedCall {
  const request = call("pay", args);
  return {
    decision: decisionsOf(RULES).decide(request),
    request: mcpAccessRequest({
      caller: request.subject.id,
      service: request.resource.id,
      method: "tools/call",
      tool: "pay",
      args,
    }),
    ...{ caller: "agents/billing", callerDetail: "", service: "payments", action: "tools/call", target: "pay" },
    summary: "pay",
  };
}

test("what callers send is remembered up to a bound in all, the latest longest", async () => {
  const explanations = createExplanations();
  const kept = denied({ a: 1 });
  explanations.remember(kept, madeBy, time);
  const large = Array.from({ length: 12 }, (_, index) => denied({ a: "x".repeat(4 * 1024 * 1024 - index) }));
  for (const each of large.slice(0, 3)) explanations.remember(each, madeBy, time);
  expect((await explanations.explain(kept.decision.id)).rule).toBe("d");
  for (const each of large.slice(3)) explanations.remember(each, madeBy, time);
  const found = await Promise.allSettled(large.map(async ({ decision }) => explanations.explain(decision.id)));
  expect(found.filter(({ status }) => status === "fulfilled").length).toBe(7);
  expect(found.at(-1)?.status).toBe("fulfilled");
  expect(() => explanations.explain(kept.decision.id)).toThrow(expect.objectContaining({ code: "decision-unknown" }));
});

test("many small values weigh as one large does, and what is larger than all is remembered alone", async () => {
  const explanations = createExplanations();
  const many = denied({ a: Array.from({ length: 1_200_000 }, () => 1) });
  const [before, after] = [denied({ a: 1 }), denied({ a: 2 })];
  explanations.remember(before, madeBy, time);
  explanations.remember(many, madeBy, time);
  expect(() => explanations.explain(before.decision.id)).toThrow(expect.objectContaining({ code: "decision-unknown" }));
  expect((await explanations.explain(many.decision.id)).rule).toBe("d");
  explanations.remember(after, madeBy, time);
  expect((await explanations.explain(after.decision.id)).rule).toBe("d");
});
