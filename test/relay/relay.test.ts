import { X509Certificate } from "node:crypto";
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

it("carries a path with a blank in it as it was written", async () => {
  const response = await fetch(`${running.urlOf("invoices")}/v1/last%20year`);
  expect([response.status, await response.text()]).toEqual([200, "you asked for /v1/last%20year"]);
});

it("tells the service of the caller's certificate, and takes nobody else's word for it (RFC 9440)", async () => {
  const forged = { "client-cert": ":AAAA:", client_cert: ":AAAA:", "client-cert-chain": ":AAAA:" };
  const response = await fetch(`${running.urlOf("invoices")}/v1/invoices`, { headers: forged });
  expect(response.status).toBe(200);
  const { rawHeaders = [] } = invoices.arrived.at(-1) ?? {};
  const told = rawHeaders.flatMap((name, at) => (/^client.cert/i.test(name) ? [[name, rawHeaders[at + 1] ?? ""]] : []));
  expect(told.map(([name]) => name)).toEqual(["Client-Cert"]);
  // Structured Fields, §3.3.5: a byte sequence.
  const [, base64 = ""] = /^:([A-Za-z0-9+/]+={0,2}):$/.exec(told[0]?.[1] ?? "") ?? [];
  const certificate = new X509Certificate(Buffer.from(base64, "base64"));
  expect(certificate.subjectAltName).toBe("URI:spiffe://shop.local/agents/tests");
  const sha256 = certificate.fingerprint256.replaceAll(":", "").toLowerCase();
  expect(invoices.arrived.at(-1)?.headers["x-forwarded-client-cert"]).toContain(`;Hash=${sha256};`);
});

it("refuses what no rule allows, with the reason and the decision in the answer", async () => {
  const arrived = invoices.arrived.length;
  const response = await fetch(`${running.urlOf("invoices")}/v1/invoices`, { method: "POST", body: "x" });
  expect(response.status).toBe(403);
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  expect(await response.json()).toMatchObject({ code: "denied", rule: "default", status: 403 });
  expect(invoices.arrived.length).toBe(arrived);
});
