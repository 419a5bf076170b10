import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { Decision, DecisionPoint } from "../../src/policy/access-request.js";
import { acceptedOverTls } from "./accepted.js";
import { type RunningRelay, runRelay, runUpstream, testAgent, type Upstream } from "./running-relay.js";

const ALLOW = "rules: [{ name: all, allow: { from: agents/tests, to: invoices } }]";

let upstream: Upstream;
let running: RunningRelay;
/** Called with each decision that is made; it is told when the promise that it returns resolves. */
let heldUntil: (() => Promise<void>) | undefined;
/** Connections to the leg that decides. */
let accepted: ReturnType<typeof acceptedOverTls>;

beforeAll(async () => {
  accepted = acceptedOverTls();
  upstream = await runUpstream("invoices", "http", (_request, response) => response.end("ok"));
  running = await runRelay({
    services: [upstream.service],
    rules: ALLOW,
    change: (parts) => {
      let [point, slow] = [parts.decisionPoint(), late(parts.decisionPoint())];
      const decisionPoint = () => {
        if (parts.decisionPoint() !== point) [point, slow] = [parts.decisionPoint(), late(parts.decisionPoint())];
        return slow;
      };
      return { ...parts, decisionPoint };
    },
  });
});

afterEach(() => {
  heldUntil = undefined;
  upstream.arrived.length = 0;
});

afterAll(async () => {
  accepted.stop();
  await running.close();
  upstream.close();
});

function late(point: DecisionPoint): DecisionPoint {
  return {
    ...point,
    async decide(request): Promise<Decision> {
      const decision = await point.decide(request);
      await heldUntil?.();
      return decision;
    },
  };
}

const get = (query = "") =>
  fetch(`${running.urlOf("invoices")}/a${query}`).then(
    ({ status }) => status,
    () => "ended",
  );

/** A call whose decision is made and not yet known, and what makes it known. */
async function asked(query = ""): Promise<{ answer: Promise<number | string>; tell: () => void }> {
  const { promise: told, resolve: tell } = Promise.withResolvers<void>();
  const { promise: made, resolve: isMade } = Promise.withResolvers<void>();
  heldUntil = () => {
    heldUntil = undefined;
    isMade();
    return told;
  };
  const answer = get(query);
  await made;
  return { answer, tell };
}

const decisions = () => running.record.entries.filter(({ kind }) => kind === "decision");

test("who was revoked while the decision was awaited does nothing any more", async () => {
  expect(await get()).toBe(200);
  const { answer, tell } = await asked();
  const before = decisions().length;
  running.configure(running.identities.filter(({ name }) => name !== testAgent.name));
  expect(await answer).toBe("ended");
  await expect.poll(() => accepted.last?.destroyed).toBe(true);
  tell();
  await expect.poll(() => decisions().length).toBe(before + 1);
  expect(decisions().at(-1)?.fields).toMatchObject({
    verdict: "DENY",
    reason: "the caller had gone before it was decided",
  });
  running.configure(running.identities);
  expect(await get()).toBe(200);
  expect(upstream.arrived).toHaveLength(2);
});

test("what was narrowed while the decision was awaited is decided by the rules in force", async () => {
  const { answer, tell } = await asked();
  running.setRules(`${ALLOW.slice(0, -1)}, { name: no, deny: { to: invoices } }]`);
  tell();
  expect(await answer).toBe(403);
  expect(decisions().at(-1)?.fields).toMatchObject({ verdict: "DENY", rule: "no" });
  expect(upstream.arrived).toHaveLength(0);
  running.setRules(ALLOW);
  const kept = await asked();
  kept.tell();
  expect(await kept.answer).toBe(200);
});

test("what the rules of now call sensitive is not shown of a call that was known before and decided again", async () => {
  const shown = () => JSON.stringify(running.events.findLast(({ event }) => event === "call"));
  const query = "?card=4111";
  expect([await get(query), await get(query), await get(query)]).toEqual([200, 200, 200]);
  expect(shown()).toContain("4111");
  const { answer, tell } = await asked(query);
  running.setRules(
    `rules: [{ name: all, allow: { from: agents/tests, to: invoices }, when: 'request.query.card == "4111"', sensitive: [request.query.card] }]`,
  );
  tell();
  expect(await answer).toBe(200);
  expect(shown()).not.toContain("4111");
  running.setRules(ALLOW);
});
