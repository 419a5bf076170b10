import { once } from "node:events";
import { connect as connectTls } from "node:tls";
import { afterEach, beforeEach, expect, onTestFinished, test } from "vitest";
import { createStrangerRefusals, type StrangerRefusals } from "../../src/audit/stranger-refusals.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { exchange } from "./certification.js";
import { decidesBy, type RunningAuthzen, runAuthzen } from "./running-authzen.js";

const BOUNDS = { atOnce: 10, everyMs: 60_000, firstSumMs: 60_000, lastSumMs: 60_000, kinds: 16 };
let running: RunningAuthzen;
let strangers: StrangerRefusals;

beforeEach(async () => {
  running = await runAuthzen({
    change(parts) {
      strangers = createStrangerRefusals(parts.audit, createTestClock(), undefined, BOUNDS);
      return { strangers, decisionPoint: () => decidesBy(() => false) };
    },
  });
});

afterEach(() => running.close());

const question = JSON.stringify({
  subject: { type: "user", id: "alice" },
  action: { name: "read" },
  resource: { type: "record", id: "r" },
});

async function ask(name?: string): Promise<number> {
  const headers = { "content-type": "application/json" };
  const sent = { method: "POST", path: "/access/v1/evaluation", headers, body: question };
  return (await exchange(running.tlsAs(name), sent)).status;
}

const recorded = (caller: string) =>
  running.record.entries.filter(({ kind, fields }) => kind === "decision" && fields.caller === caller).length;

test("refusals of who may not ask are summed, each caller's apart; every answer to an enforcement point is on record", async () => {
  for (let i = 0; i < 20; i += 1) expect(await ask()).toBe(401);
  for (let i = 0; i < 20; i += 1) expect(await ask("agents/stranger")).toBe(403);
  for (let i = 0; i < 15; i += 1) expect(await ask("agents/gateway")).toBe(200);
  expect([recorded("(none)"), recorded("spiffe://shop.local/agents/stranger"), recorded("user:alice")]).toEqual([
    ...[10, 10, 15],
  ]);
  strangers.close();
  const sums = running.record.entries.filter(({ kind }) => kind === "refusals.counted").map(({ fields }) => fields);
  expect(sums).toMatchObject([
    { caller: "(none)", count: 10, leg: "authzen", rule: "certificate-refused" },
    { caller: "spiffe://shop.local/agents/stranger", count: 10, leg: "authzen", rule: "client-unknown" },
  ]);
});

test("peers without a certificate have a few places, and take none of an enforcement point's", async () => {
  const open = () => connectTls({ host: "127.0.0.1", port: running.tlsPort, rejectUnauthorized: false });
  const flood = Array.from({ length: 100 }, open);
  onTestFinished(() => {
    for (const socket of flood) socket.destroy();
  });
  let closed = 0;
  for (const socket of flood) {
    socket.on("error", () => undefined);
    socket.on("close", () => {
      closed += 1;
    });
  }
  await Promise.all(flood.map((socket) => Promise.race([once(socket, "secureConnect"), once(socket, "close")])));
  await expect.poll(() => closed).toBe(36);
  expect(await ask("agents/gateway")).toBe(200);
});
