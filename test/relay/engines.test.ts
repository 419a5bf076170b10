import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import type { DecisionPoint } from "../../src/policy/access-request.js";
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

test("an obligation of a policy, of which the relay knows none, is a denial", async () => {
  const project = { files: { "finance.tar.gz": bundle, "shop.cedar": "permit(principal, action, resource);" } };
  const hours = { ...REGO, entrypoint: "finance/business_hours" };
  await decideBy({ ...project, engines: [{ name: "corporate", cedar: "shop.cedar" }, hours] });
  expect((await call("GET")).status).toBe(200);
  const obligation = [{ id: "two-eyes", type: "approval" }];
  const permits = decisions;
  decisions = {
    ...permits,
    decide: async (request) => ({ ...(await permits.decide(request)), obligations: obligation }),
  };
  expect(await call("GET")).toMatchObject({ status: 403, detail: expect.stringContaining("approval") });
});

test("a stream of an MCP server's messages is for whom an engine permits something there that cannot say so beforehand", async () => {
  let permits = false;
  const asked: string[] = [];
  const opa = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      asked.push(JSON.parse(Buffer.concat(chunks).toString()).input.action.name);
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ result: permits }));
    });
  });
  await new Promise<void>((resolve) => opa.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    opa.closeAllConnections();
    opa.close();
  });
  const url = `http://127.0.0.1:${(opa.address() as AddressInfo).port}`;
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
