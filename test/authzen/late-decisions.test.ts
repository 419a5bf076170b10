import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { AccessRequest, DecisionPoint } from "../../src/policy/access-request.js";
import { identity } from "../relay/running-relay.js";
import { exchange } from "./certification.js";
import { decidesBy, directory, type RunningAuthzen, runAuthzen } from "./running-authzen.js";

/** A decision point that answers later, when the test says so. */
function late(permits: (request: AccessRequest) => boolean): DecisionPoint {
  const base = decidesBy(permits);
  const decide = async (request: AccessRequest) => {
    const decision = await base.decide(request);
    await heldUntil?.();
    return decision;
  };
  return { ...base, decide, wouldDecide: decide };
}

let running: RunningAuthzen;
let point: DecisionPoint;
let heldUntil: (() => Promise<void>) | undefined;
let revoked = false;

const users = directory(["a", "b", "c"].map((id) => ({ type: "user", id, properties: {} })));

beforeAll(async () => {
  running = await runAuthzen({
    identities: [identity("agents/asked")],
    change: ({ registry }) => ({
      decisionPoint: () => point,
      entities: () => users,
      registry: { ...registry, find: registry.find, isRevoked: () => revoked },
    }),
  });
});

afterEach(() => {
  heldUntil = undefined;
});

afterAll(() => running.close());

const question = {
  subject: { type: "spiffe", id: "spiffe://shop.local/agents/asked" },
  action: { name: "read" },
  resource: { type: "record", id: "r" },
};

/** An answer that is worked out and not yet given, and what gives it. */
async function asked(path: string, body: object) {
  const { promise: told, resolve: tell } = Promise.withResolvers<void>();
  const { promise: made, resolve: isMade } = Promise.withResolvers<void>();
  heldUntil = () => {
    heldUntil = undefined;
    isMade();
    return told;
  };
  const headers = { "content-type": "application/json" };
  const sent = exchange(running.unix, { method: "POST", path, headers, body: JSON.stringify(body) });
  const answer = sent.then(({ text }) => JSON.parse(text));
  await made;
  return { answer, tell };
}

const EVALUATION = "/access/v1/evaluation";

test("a narrowing does not wait for a decision that is under way", async () => {
  point = late(() => true);
  const unchanged = await asked(EVALUATION, question);
  unchanged.tell();
  expect(await unchanged.answer).toMatchObject({ decision: true });
  const { answer, tell } = await asked(EVALUATION, question);
  point = late(() => false);
  tell();
  expect(await answer).toMatchObject({ decision: false });
  point = late(() => true);
  const batch = await asked("/access/v1/evaluations", { ...question, evaluations: [{}, {}] });
  point = late(() => false);
  batch.tell();
  expect(await batch.answer).toMatchObject({ evaluations: [{ decision: false }, { decision: false }] });
});

test("a search is by one set of policies: it begins anew where they change in between", async () => {
  const search = { ...question, subject: { type: "user" } };
  point = late(({ subject }) => subject.id !== "b");
  const unchanged = await asked("/access/v1/search/subject", search);
  unchanged.tell();
  expect((await unchanged.answer).results).toMatchObject([{ id: "a" }, { id: "c" }]);
  const { answer, tell } = await asked("/access/v1/search/subject", search);
  point = late(({ subject }) => subject.id === "b");
  tell();
  expect((await answer).results).toMatchObject([{ id: "b" }]);
});

test("who is revoked while it is decided is permitted nothing", async () => {
  point = late(() => true);
  const { answer, tell } = await asked(EVALUATION, question);
  revoked = true;
  tell();
  const { decision, context } = await answer;
  expect(decision).toBe(false);
  expect(context.reason_admin.en).toContain("is revoked");
});
