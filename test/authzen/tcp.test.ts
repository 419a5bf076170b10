import { afterEach, expect, it } from "vitest";
import type { RunningService } from "../../src/relay/running-service.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { shop } from "../relay/running-relay.js";
import { exchange } from "./certification.js";
import { payments, type RunningAuthzen, runAuthzen } from "./running-authzen.js";

/** Other enforcement points ask about connections as the relay does. */

const orders: RunningService = {
  name: "orders",
  id: SpiffeId.of(shop, "services/orders"),
  protocol: "tcp",
  listenPort: undefined,
  upstream: { kind: "unix", path: "/nonexistent/orders.sock" },
};

let running: RunningAuthzen;
afterEach(() => running.close());

const asks = async (path: string, body: unknown) => {
  const answer = await exchange(running.unix, {
    method: "POST",
    path: `/access/v1/${path}`,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  expect(answer.status).toBe(200);
  return JSON.parse(answer.text);
};

it("evaluation and searches know a tcp service and its one action", async () => {
  running = await runAuthzen({
    services: [payments, orders],
    rules: "rules:\n  - { name: connects, allow: { from: agents/gateway, to: orders, action: connect } }\n",
  });
  const subject = { type: "spiffe", id: "spiffe://shop.local/agents/gateway" };
  const action = { name: "connect" };
  const resource = { type: "tcp", id: orders.id.toString() };
  expect(await asks("evaluation", { subject, action, resource })).toMatchObject({ decision: true });
  expect(running.record.entries.at(-1)?.fields).toMatchObject({ service: "orders", action: "connect" });
  const others = [
    { subject: { ...subject, id: "spiffe://shop.local/agents/stranger" }, action, resource },
    { subject, action: { name: "http:GET" }, resource },
    { subject, action, resource: { ...resource, id: payments.id.toString() } },
  ];
  for (const other of others) expect(await asks("evaluation", other)).toMatchObject({ decision: false });
  expect((await asks("search/resource", { subject, action, resource: { type: "tcp" } })).results).toEqual([resource]);
  expect((await asks("search/action", { subject, resource })).results).toEqual([action]);
  expect((await asks("search/subject", { subject: { type: "spiffe" }, action, resource })).results).toEqual([subject]);
});
