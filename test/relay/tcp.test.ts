import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { identity, type RunningRelay, runRelay, testAgent } from "./running-relay.js";
import { decisions, echo, ends, eventually, plainTo, runTcpUpstream, type TcpUpstream } from "./tcp-services.js";

const RULES = "rules:\n  - { name: connects, allow: { from: agents/tests, to: orders, action: connect } }\n";

let orders: TcpUpstream;
let running: RunningRelay;

beforeEach(async () => {
  orders = await runTcpUpstream("orders", echo);
  running = await runRelay({
    services: [orders.service],
    identities: [testAgent, identity("agents/other")],
    rules: RULES,
  });
});

afterEach(async () => {
  await running.close();
  await orders.close();
});

describe("a connection to a tcp service", () => {
  it("is decided once, recorded, and carries bytes both ways", async () => {
    const { socket, text, over } = await plainTo(running, "orders");
    socket.write("SELECT 1;");
    await eventually(text).toBe("SELECT 1;");
    expect(decisions(running)).toEqual([
      expect.objectContaining({
        verdict: "ALLOW",
        leg: "inbound",
        caller: "spiffe://shop.local/agents/tests",
        evidence: "kernel",
        protocol: "tcp",
        action: "connect",
        rule: "connects",
      }),
    ]);
    expect(ends(running)).toEqual([]);
    socket.end("done");
    expect(await over).toBe("end");
    expect(text()).toBe("SELECT 1;done");
    await eventually(() => ends(running)).toEqual([expect.objectContaining({ status: null, sent: 13, received: 13 })]);
    expect(ends(running)[0]).not.toHaveProperty("error");
    const shown = running.events.filter(({ event }) => event.startsWith("call"));
    expect(shown).toEqual([
      expect.objectContaining({
        event: "call",
        verdict: "ALLOW",
        caller: "agents/tests",
        protocol: "tcp",
        summary: "connect",
        callerDetail: expect.stringContaining(`pid ${process.pid}`),
      }),
      expect.objectContaining({ event: "call.ended", sent: 13, received: 13 }),
    ]);
  });

  it("that no rule allows is closed in order, on record, and not a byte of it arrives", async () => {
    running.setRules("rules: []\n");
    const refused = await plainTo(running, "orders");
    refused.socket.write("DROP TABLE orders;".repeat(10_000));
    await once(refused.socket, "end");
    refused.socket.end();
    expect(await refused.over).toBe("end");
    expect(refused.text()).toBe("");
    expect(orders.arrived).toHaveLength(0);
    expect(decisions(running)).toEqual([
      expect.objectContaining({
        verdict: "DENY",
        rule: "default",
        reason: "no rule allows agents/tests connect at services/orders",
      }),
    ]);
    // The positive control: the same connection under a rule.
    running.setRules(RULES);
    const allowed = await plainTo(running, "orders");
    allowed.socket.end("ok");
    expect(await allowed.over).toBe("end");
    expect(allowed.text()).toBe("ok");
    expect(orders.begun.map(String)).toEqual(["ok"]);
  });
});
