import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import type { AccessRequest, DecisionPoint } from "../../src/policy/access-request.js";
import { decisionsOf, type TestedDecisions } from "../policy/engines/engine-project.js";
import { type RunningRelay, runRelay, runUpstream, type Upstream } from "./running-relay.js";

const bundle = readFileSync(new URL("../policy/engines/finance/finance.tar.gz", import.meta.url));
const REGO = { name: "finance", bundle: "finance.tar.gz", scope: ["invoices"], timeout: "20s" };

let invoices: Upstream;
let payments: Upstream;
let running: RunningRelay;
let decisions: DecisionPoint;

beforeAll(async () => {
  invoices = await runUpstream("invoices", "http", (request, response) => {
    request.resume().on("end", () => response.end("an invoice"));
  });
  payments = await runUpstream("payments", "mcp", (_request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" }).end("data: {}\n\n");
  });
  running = await runRelay({
    services: [invoices.service, payments.service],
    rules: "rules: []",
    change: (parts) => ({ ...parts, decisionPoint: () => decisions }),
  });
});

afterAll(async () => {
  await running.close();
  invoices.close();
  payments.close();
});

async function call(method: string): Promise<{ status: number; detail: string }> {
  const response = await fetch(`${running.urlOf("invoices")}/v1/invoices/1017`, { method });
  return { status: response.status, detail: await response.text() };
}

const decideBy = async (project: Parameters<typeof decisionsOf>[0]): Promise<TestedDecisions> => {
  const made = await decisionsOf(project);
  decisions = made;
  return made;
};

test("a call goes through inside of the hours that a Rego policy keeps, and not outside of them", async () => {
  const engines = [{ ...REGO, entrypoint: "finance/business_hours" }];
  const { at } = await decideBy({ files: { "finance.tar.gz": bundle }, engines });
  at("2025-01-15T15:59:59Z");
  expect(await call("GET")).toEqual({ status: 200, detail: "an invoice" });
  const arrived = invoices.arrived.length;
  at("2025-01-15T16:00:00Z");
  const late = await call("GET");
  expect(late.status).toBe(403);
  expect(JSON.parse(late.detail)).toMatchObject({ code: "denied", rule: "finance/business_hours" });
  expect(invoices.arrived.length).toBe(arrived);
});

test("a Cedar policy permits one method and not the other", async () => {
  await decideBy({
    files: {
      "shop.cedar":
        'permit(principal == Agent::"spiffe://shop.local/agents/tests", action == Action::"http:GET", resource == Service::"invoices") when { resource.path like "/v1/*" };',
    },
    engines: [{ name: "corporate", cedar: "shop.cedar" }],
  });
  expect((await call("GET")).status).toBe(200);
  expect((await call("DELETE")).status).toBe(403);
});

/** An OPA server that answers with what `result` says. */
async function serveOpa(result: (input: AccessRequest) => unknown): Promise<string> {
  const opa = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const answer = result(JSON.parse(Buffer.concat(chunks).toString()).input);
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ result: answer }));
    });
  });
  await new Promise<void>((resolve) => opa.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    opa.closeAllConnections();
    opa.close();
  });
  return `http://127.0.0.1:${(opa.address() as AddressInfo).port}`;
}

test("an obligation of an engine, which the relay does not know, is a denial that names both and costs no token", async () => {
  let obligations: readonly object[] = [{ id: "two-eyes", type: "approval" }];
  const url = await serveOpa(() => ({ allow: true, obligations }));
  await decideBy({
    rules: `rules: [{ name: once, allow: { from: "agents/**", to: invoices }, limit: 1 per hour }]`,
    engines: [{ name: "central", opa: url, path: "finance/allow", timeout: "20s" }],
  });
  for (let i = 0; i < 3; i += 1) {
    const denied = await call("GET");
    expect(denied.status).toBe(403);
    expect(JSON.parse(denied.detail)).toMatchObject({
      rule: "finance/allow",
      detail: "finance/allow requires approval, which the relay does not know",
    });
  }
  const recorded = running.record.entries.findLast(({ kind }) => kind === "decision");
  expect(recorded?.fields).toMatchObject({ verdict: "DENY", engine: "central", rule: "finance/allow" });
  obligations = [];
  expect([(await call("GET")).status, (await call("GET")).status]).toEqual([200, 403]);
});

test("a stream of an MCP server's messages is for whom an engine permits something there that cannot say so beforehand", async () => {
  let permits = false;
  const asked: string[] = [];
  const url = await serveOpa(({ action }) => {
    asked.push(action.name);
    return permits;
  });
  const engine = { name: "central", opa: url, path: "mcp/allow", timeout: "20s" };
  await decideBy({ rulesScope: ["invoices"], engines: [{ ...engine, scope: ["payments"] }] });
  const listen = async () => {
    const response = await fetch(`${running.urlOf("payments")}/mcp`, { headers: { accept: "text/event-stream" } });
    await response.text();
    return response.status;
  };
  expect(await listen()).toBe(403);
  expect(payments.arrived).toHaveLength(0);
  permits = true;
  expect(await listen()).toBe(200);
  expect(asked).toEqual(["ping", "ping"]);
  // Where the engine is not asked, the rules alone say who may.
  await decideBy({ engines: [{ ...engine, scope: ["invoices"] }] });
  expect(await listen()).toBe(200);
  expect(asked).toHaveLength(2);
});
