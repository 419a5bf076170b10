import { request as tlsRequest } from "node:https";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { CallerLaunch } from "../../src/attestation/caller.js";
import { secureContextOptions } from "../../src/http/mutual-tls.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { callerLaunch } from "../identity/test-trust-domain.js";
import { identity, type RunningRelay, runRelay, runUpstream, shop, testAgent, type Upstream } from "./running-relay.js";

const RULES = `rules:
  - { name: reads, allow: { from: agents/tests, to: [invoices, payments] } }
  - { name: lead-reads, allow: { from: agents/lead, to: invoices, path: /v1/lead } }
  - { name: lead-gets, allow: { from: agents/lead, to: payments, tools: [get_invoice] } }
`;
const lead = "spiffe://shop.local/agents/lead";

let invoices: Upstream;
let payments: Upstream;
let running: RunningRelay;
let launch: CallerLaunch | undefined;

beforeEach(async () => {
  launch = undefined;
  invoices = await runUpstream("invoices", "http", (request, response) => {
    request.resume().on("end", () => response.end("arrived"));
  });
  payments = await runUpstream("payments", "mcp", (request, response) => {
    request.resume().on("end", () => {
      const tools = [{ name: "get_invoice" }, { name: "issue_refund" }];
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ jsonrpc: "2.0", id: 1, result: { tools } }));
    });
  });
  running = await runRelay({
    services: [invoices.service, payments.service],
    identities: [testAgent, identity("agents/lead", { facts: { exePath: "/nowhere" } })],
    rules: RULES,
    // The process of the tests is nobody's launch: what its launch would be is said here.
    change: (parts) => ({
      ...parts,
      attestor: {
        ...parts.attestor,
        async ofTcpConnection(endpoints) {
          const caller = await parts.attestor.ofTcpConnection(endpoints);
          if ("nobody" in caller) return caller;
          const { facts } = caller;
          return { facts, launch, recheck: () => caller.recheck(), close: () => caller.close() };
        },
      },
    }),
  });
});

afterEach(async () => {
  await running.close();
  invoices.close();
  payments.close();
});

/** Each on a connection of its own, which is attested anew. */
const headers = { connection: "close" };
const get = async (path: string) => (await fetch(`${running.urlOf("invoices")}${path}`, { headers })).status;

it("the agents above a caller decide with it, on record and in what people see", async () => {
  expect([await get("/v1/lead"), await get("/v1/other")]).toEqual([200, 200]);
  launch = callerLaunch("agents/elsewhere", { launchedBy: [lead] });
  expect([await get("/v1/lead"), await get("/v1/other")]).toEqual([200, 403]);
  const decisions = running.record.entries.filter(({ kind }) => kind === "decision").map(({ fields }) => fields);
  expect(decisions.map(({ launchedBy }) => launchedBy)).toEqual([undefined, undefined, [lead], [lead]]);
  expect(decisions.at(-1)).toMatchObject({ verdict: "DENY", deniedAbove: lead, evidence: "kernel" });
  const shown = running.events.filter((event) => event.event === "call");
  expect(shown.map(({ launchedBy }) => launchedBy)).toEqual([undefined, undefined, ["agents/lead"], ["agents/lead"]]);
});

it("tools are listed as far as the whole chain may call them", async () => {
  const list = async () => {
    const answer = await fetch(`${running.urlOf("payments")}/mcp`, {
      method: "POST",
      headers: { ...headers, "content-type": "application/json", accept: "application/json, text/event-stream" },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" }),
    });
    const { result } = (await answer.json()) as { result: { tools: { name: string }[] } };
    return result.tools.map(({ name }) => name);
  };
  expect(await list()).toEqual(["get_invoice", "issue_refund"]);
  launch = callerLaunch("agents/elsewhere", { launchedBy: [lead] });
  expect(await list()).toEqual(["get_invoice"]);
});

it("the chain is taken from the certificate where a sub-agent comes around the outbound leg", async () => {
  const { mtls } = running.relay.addressesOf("invoices") ?? { mtls: { host: "", port: 0 } };
  const by = (launchedBy: readonly string[], path: string) =>
    new Promise<number>((resolve, reject) => {
      const svid = running.keeper.x509Svid(SpiffeId.of(shop, "agents/tests"), launchedBy);
      const { cert, key } = secureContextOptions(svid);
      const to = { host: mtls.host, port: mtls.port, path, cert, key, rejectUnauthorized: false, agent: false };
      const asking = tlsRequest({ ...to, headers: { host: "invoices" } }, (answer) => {
        answer.resume().on("end", () => resolve(answer.statusCode ?? 0));
      });
      asking.on("error", reject).end();
    });
  expect([await by([], "/v1/other"), await by([lead], "/v1/lead"), await by([lead], "/v1/other")]).toEqual([
    200, 200, 403,
  ]);
  expect(running.record.entries.at(-1)?.fields).toMatchObject({ evidence: "certificate", launchedBy: [lead] });
});
