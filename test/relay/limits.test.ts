import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { paymentsServer } from "./payments-server.js";
import { type RunningRelay, runRelay, runUpstream, type Upstream } from "./running-relay.js";

const RULES = `rules:
  - { name: once, allow: { from: agents/tests, to: invoices, path: /once }, limit: 1 per hour }
  - { name: careful, allow: { from: agents/tests, to: invoices, path: /careful }, require: [approval] }
  - { name: all, allow: { from: agents/tests, to: invoices, path: /all } }
  - { name: closing, deny: { path: /all }, shadow: true }
  - { name: reads, allow: { from: agents/tests, to: payments, tools: get_invoice }, limit: { rate: 1, per: hour, backoff: { first: 1h, max: 2h } } }
`;

let upstreams: readonly Upstream[];
let running: RunningRelay;
const executed: string[] = [];

beforeAll(async () => {
  upstreams = [
    await runUpstream("invoices", "http", (_request, response) => response.end("ok")),
    await runUpstream("payments", "mcp", paymentsServer("json", executed)),
  ];
  running = await runRelay({ services: upstreams.map(({ service }) => service), rules: RULES });
});

afterAll(async () => {
  await running.close();
  for (const upstream of upstreams) upstream.close();
});

const get = (path: string) => fetch(`${running.urlOf("invoices")}${path}`);

test("D17: what a limit refuses is 403 with problem details, and says when to ask again", async () => {
  expect((await get("/once")).status).toBe(200);
  const refused = await get("/once");
  expect(refused.status).toBe(403);
  expect(refused.headers.get("content-type")).toBe("application/problem+json");
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(3_500);
  expect(Number(refused.headers.get("retry-after"))).toBeLessThanOrEqual(3_600);
  expect(await refused.json()).toMatchObject({ rule: "once", detail: expect.stringContaining("ask again in 60 min") });
  expect((await get("/all")).headers.get("retry-after")).toBeNull();
});

test("a tool whose limit is empty is a result that tells the model when to ask again", async () => {
  const client = new Client({ name: "tests", version: "1.0.0" });
  const transport = new StreamableHTTPClientTransport(new URL(`${running.urlOf("payments")}/mcp`));
  await client.connect(transport as Parameters<Client["connect"]>[0]);
  try {
    expect((await client.callTool({ name: "get_invoice", arguments: { id: 1 } })).isError).toBeUndefined();
    const refused = await client.callTool({ name: "get_invoice", arguments: { id: 2 } });
    expect(refused.isError).toBe(true);
    expect(JSON.stringify(refused.content)).toContain("reads allows 1 per hour for each identity");
    expect(JSON.stringify(refused.content)).toContain("ask again in 60 min");
    expect(executed).toEqual(["get_invoice 1"]);
  } finally {
    await client.close();
  }
});

test("an allow that obliges to what the relay does not know is a denial", async () => {
  const refused = await get("/careful");
  expect(refused.status).toBe(403);
  expect(await refused.json()).toMatchObject({ detail: "careful requires approval, which the relay does not know" });
  expect((await get("/all")).status).toBe(200);
});

test("what a rule in shadow would have done is in the record and in the event", async () => {
  expect((await get("/all")).status).toBe(200);
  const shown = running.events.findLast((event) => event.event === "call" && event.target === "/all");
  expect(shown).toMatchObject({ verdict: "ALLOW", shadow: [{ rule: "closing", would: "deny", differs: true }] });
  const recorded = running.record.entries.findLast(
    ({ kind, fields }) => kind === "decision" && fields.target === "/all",
  );
  expect(recorded?.fields.shadow).toMatchObject([
    { rule: "closing", would: "deny", differs: true, reason: "denied by closing" },
  ]);
  const plain = running.record.entries.find(({ kind, fields }) => kind === "decision" && fields.target === "/once");
  expect(plain?.fields).not.toHaveProperty("shadow");
});
