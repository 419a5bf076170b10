import { afterEach, beforeEach, expect, test } from "vitest";
import { CodedError } from "../../src/coded-error.js";
import type { Decision, DecisionPoint } from "../../src/policy/access-request.js";
import { identity } from "../relay/running-relay.js";
import { exchange } from "./certification.js";
import { type RunningAuthzen, runAuthzen } from "./running-authzen.js";

const LIMIT = "limit: { rate: 2, per: hour, backoff: { first: 1s, max: 1s } }";
const RULES = `rules:
  - { name: reads, allow: { from: agents/asked, to: payments, tools: get }, ${LIMIT} }
  - { name: careful, allow: { from: agents/asked, to: payments, tools: refund }, require: [approval], ${LIMIT} }
`;

let running: RunningAuthzen;
/** Decisions come later, and this happens before they do. */
let isSlow: boolean;
let meanwhile: (() => void) | undefined;
let revoked: boolean;
/** How many more entries can be written. */
let room: number;

beforeEach(async () => {
  revoked = false;
  isSlow = false;
  room = Number.POSITIVE_INFINITY;
  running = await runAuthzen({
    rules: RULES,
    identities: [identity("agents/asked")],
    change: ({ registry, audit, decisionPoint }) => ({
      registry: { ...registry, find: registry.find, isRevoked: () => revoked },
      audit: {
        ...audit,
        async appendInTurn(kind, fields) {
          room -= 1;
          if (room < 0) throw new CodedError("audit-unwritable", "the disk is full");
          return audit.append(kind, fields);
        },
      },
      decisionPoint() {
        const point = decisionPoint();
        if (!isSlow) return point;
        known ??= { ...point, decide: late(point) };
        return known;
      },
    }),
  });
});

afterEach(async () => {
  known = undefined;
  await running.close();
});

let known: DecisionPoint | undefined;
const late =
  (point: DecisionPoint): DecisionPoint["decide"] =>
  async (request, enforcement): Promise<Decision> => {
    const decision = await point.decide(request, enforcement);
    meanwhile?.();
    return decision;
  };

const question = (tool: string, context: object = {}) => ({
  subject: { type: "spiffe", id: "spiffe://shop.local/agents/asked" },
  action: { name: "tools/call" },
  resource: { type: "mcp-tool", id: "spiffe://shop.local/mcp/payments", properties: { tool } },
  context,
});

async function post(body: object, path = "evaluation") {
  const headers = { "content-type": "application/json" };
  const sent = { method: "POST", path: `/access/v1/${path}`, headers, body: JSON.stringify(body) };
  const { status, text } = await exchange(running.unix, sent);
  return status === 200 ? JSON.parse(text) : status;
}

const allowed = async (tool: string, context?: object) => (await post(question(tool, context))).decision;

test("questions of an enforcement point that does not know the obligation cost nothing", async () => {
  for (let i = 0; i < 5; i += 1) expect(await allowed("refund")).toBe(false);
  const { context } = await post(question("refund"));
  expect(context.reason_admin.en).toBe("careful requires approval, which context.supported_obligations does not name");
  const able = { supported_obligations: ["approval"] };
  expect([await allowed("refund", able), await allowed("refund", able), await allowed("refund", able)]).toEqual([
    ...[true, true, false],
  ]);
});

test("what was revoked while it was decided, or is decided again, costs nothing", async () => {
  isSlow = true;
  meanwhile = () => {
    revoked = true;
  };
  expect(await allowed("get")).toBe(false);
  revoked = false;
  // Another decision point is in force by then.
  meanwhile = () => {
    isSlow = false;
  };
  expect(await allowed("get")).toBe(true);
  expect([await allowed("get"), await allowed("get")]).toEqual([true, false]);
});

test("what cannot be recorded costs nothing, of a batch none of its questions", async () => {
  room = 0;
  expect(await post(question("get"))).toBe(503);
  room = 1;
  expect(await post({ ...question("get"), evaluations: [{}, {}] }, "evaluations")).toBe(503);
  room = 10;
  expect([await allowed("get"), await allowed("get"), await allowed("get")]).toEqual([true, true, false]);
});
