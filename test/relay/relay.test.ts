import { afterAll, beforeAll, expect, it } from "vitest";
import { type RunningRelay, runRelay, runUpstream, type Upstream } from "./running-relay.js";

let invoices: Upstream;
let running: RunningRelay;

beforeAll(async () => {
  invoices = await runUpstream("invoices", "http", (request, response) => {
    request.resume().on("end", () => response.end(`you asked for ${request.url}`));
  });
  running = await runRelay({
    services: [invoices.service],
    rules: "rules:\n  - { name: reads, allow: { from: agents/tests, to: invoices, method: GET, path: /v1/** } }\n",
  });
});

afterAll(async () => {
  await running.close();
  invoices.close();
});

it("carries an allowed call through both legs as the caller that the kernel names", async () => {
  const response = await fetch(`${running.urlOf("invoices")}/v1/invoices?open=1`);
  const text = await response.text();
  expect({ status: response.status, text }).toEqual({ status: 200, text: "you asked for /v1/invoices?open=1" });
  const decision = response.headers.get("agentid-decision");
  const call = running.events.find((event) => event.event === "call" && event.decision === decision);
  expect(call).toMatchObject({ verdict: "ALLOW", caller: "agents/tests", rule: "reads", service: "invoices" });
  expect(invoices.arrived.at(-1)?.headers["x-forwarded-client-cert"]).toMatch(
    /^By=spiffe:\/\/shop.local\/services\/invoices;Hash=[0-9a-f]{64};URI=spiffe:\/\/shop.local\/agents\/tests$/,
  );
});

it("refuses what no rule allows, with the reason and the decision in the answer", async () => {
  const arrived = invoices.arrived.length;
  const response = await fetch(`${running.urlOf("invoices")}/v1/invoices`, { method: "POST", body: "x" });
  expect(response.status).toBe(403);
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  expect(await response.json()).toMatchObject({ code: "denied", rule: "default", status: 403 });
  expect(invoices.arrived.length).toBe(arrived);
});
