import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createOtlpTracer } from "../../src/telemetry/otlp-tracer.js";
import { runCollector } from "../telemetry/collector.js";
import { type RunningRelay, runRelay, runUpstream, type Upstream } from "./running-relay.js";

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
const spanId = "00f067aa0ba902b7";
const rules = `rules:
  - { name: reads, allow: { from: agents/tests, to: invoices, method: GET } }
  - { name: refunds, allow: { from: agents/tests, to: payments, tools: [refund] }, when: args.amount < 10 }
`;

describe("the trace of a call", () => {
  let invoices: Upstream;
  let payments: Upstream;
  let running: RunningRelay;
  let collector: Awaited<ReturnType<typeof runCollector>>;
  const bodies: { params: Record<string, unknown> }[] = [];

  beforeAll(async () => {
    invoices = await runUpstream("invoices", "http", (_, response) => response.end("ok"));
    payments = await runUpstream("payments", "mcp", (request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      request.on("end", () => {
        bodies.push(JSON.parse(body) as (typeof bodies)[number]);
        response.setHeader("content-type", "application/json").end('{"jsonrpc":"2.0","id":1,"result":{"content":[]}}');
      });
    });
    collector = await runCollector();
  });
  afterAll(() => {
    for (const one of [invoices, payments, collector]) one.close();
  });

  /** Runs `calls` with spans collected, and gives back what has come when the exporter has sent all. */
  async function traced(calls: (running: RunningRelay) => Promise<void>) {
    const tracer = createOtlpTracer({ url: collector.url, resource: { "service.name": "agentid" } });
    running = await runRelay({
      services: [invoices.service, payments.service],
      rules,
      change: (parts) => ({ ...parts, tracer: () => tracer }),
    });
    try {
      await calls(running);
    } finally {
      await running.close();
    }
    await tracer.close();
    return collector.spans.splice(0);
  }
  const get = (relay: RunningRelay, headers: Record<string, string>) =>
    fetch(`${relay.urlOf("invoices")}/v1`, { headers }).then((response) => response.text());
  const refund = (relay: RunningRelay, amount: number, meta: object, headers: Record<string, string> = {}) =>
    fetch(`${relay.urlOf("payments")}/mcp`, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json, text/event-stream", ...headers },
      body: JSON.stringify({
        ...{ jsonrpc: "2.0", id: 1, method: "tools/call" },
        params: { name: "refund", arguments: { amount }, _meta: meta },
      }),
    }).then((response) => response.text());

  it("goes on from the caller through both legs to the service, each the parent of the next", async () => {
    const spans = await traced((relay) =>
      get(relay, { traceparent: `00-${traceId}-${spanId}-01`, tracestate: "rojo=1" }).then(() => undefined),
    );
    const [client, server] = [3, 2].map((kind) => spans.find((span) => span.kind === kind));
    expect(client).toMatchObject({ traceId, parentSpanId: spanId, traceState: "rojo=1", name: "GET invoices" });
    expect(server).toMatchObject({ traceId, parentSpanId: client?.spanId, name: "GET invoices" });
    expect(server?.attributes).toMatchObject({
      ...{ "http.request.method": "GET", "http.response.status_code": 200, "url.path": "/v1" },
      ...{ "agentid.caller": "spiffe://shop.local/agents/tests", "agentid.verdict": "ALLOW", "agentid.rule": "reads" },
    });
    const { traceparent, tracestate } = invoices.arrived.at(-1)?.headers ?? {};
    expect([traceparent, tracestate]).toEqual([`00-${traceId}-${server?.spanId}-01`, "rojo=1"]);
    expect(collector.types.at(-1)).toBe("POST /v1/traces application/x-protobuf");
    expect(collector.resources.at(-1)).toMatchObject({ "service.name": "agentid" });
  });

  it("begins where a caller says nothing, or nothing that can be read", async () => {
    const spans = await traced(async (relay) => {
      await get(relay, {});
      await get(relay, { traceparent: "00-nonsense-01", tracestate: "rojo=1" });
    });
    const roots = spans.filter((span) => span.parentSpanId === "");
    expect(roots.map(({ kind, traceState }) => [kind, traceState])).toEqual([
      [3, ""],
      [3, ""],
    ]);
    expect(new Set(spans.map((span) => span.traceId)).size).toBe(2);
    expect(invoices.arrived.at(-1)?.headers.tracestate).toBeUndefined();
  });

  it("is not collected where the caller says so, and goes on all the same", async () => {
    const spans = await traced((relay) =>
      get(relay, { traceparent: `00-${traceId}-${spanId}-00` }).then(() => undefined),
    );
    expect(spans).toEqual([]);
    expect(invoices.arrived.at(-1)?.headers.traceparent).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`));
  });

  it("holds no query, no header, no body and no argument", async () => {
    const canary = "canary-4711";
    collector.bodies.length = 0;
    const spans = await traced(async (relay) => {
      const answer = await fetch(`${relay.urlOf("invoices")}/v1?token=${canary}`, { headers: { "x-note": canary } });
      await answer.text();
      const url = `${relay.urlOf("payments")}/mcp?token=${canary}`;
      const params = { name: "refund", arguments: { amount: 5, note: canary } };
      await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json", accept: "application/json", cookie: canary },
        body: JSON.stringify({ jsonrpc: "2.0", id: canary, method: "tools/call", params }),
      }).then((response) => response.text());
    });
    const sent = Buffer.concat(collector.bodies).toString("latin1");
    expect(spans.map(({ name }) => name).sort()).toEqual(["GET invoices", "GET invoices", "tools/call refund"]);
    expect(sent).toContain("/v1");
    expect(sent).not.toContain(canary);
    expect(invoices.arrived.at(-1)).toMatchObject({ url: `/v1?token=${canary}`, headers: { "x-note": canary } });
    expect(JSON.stringify(bodies.at(-1))).toContain(canary);
  });

  it("shows a denial and its rule", async () => {
    const spans = await traced(async (relay) => {
      await fetch(`${relay.urlOf("invoices")}/v1`, { method: "DELETE" }).then((response) => response.text());
    });
    const [client, server] = [3, 2].map((kind) => spans.find((span) => span.kind === kind));
    expect(server?.attributes).toMatchObject({
      ...{ "agentid.verdict": "DENY", "agentid.rule": "default", "http.response.status_code": 403 },
    });
    // An error of who called, and none of who answered.
    expect([client?.status, client?.attributes["error.type"], server?.status]).toEqual([2, "403", 0]);
  });

  it("of an MCP message may stand in its body (_meta), and goes on there too", async () => {
    const meta = { traceparent: `00-${traceId}-${spanId}-01`, other: "kept" };
    const spans = await traced((relay) => refund(relay, 5, meta).then(() => undefined));
    expect(spans).toHaveLength(1);
    expect(spans[0]).toMatchObject({ traceId, parentSpanId: spanId, kind: 2, name: "tools/call refund" });
    expect(spans[0]?.attributes).toMatchObject({ "mcp.method.name": "tools/call", "gen_ai.tool.name": "refund" });
    const forwarded = { ...meta, traceparent: `00-${traceId}-${spans[0]?.spanId}-01` };
    expect(bodies.at(-1)?.params).toEqual({ name: "refund", arguments: { amount: 5 }, _meta: forwarded });
    expect(payments.arrived.at(-1)?.headers.traceparent).toBe(forwarded.traceparent);
  });

  it("passes untouched where nobody collects", async () => {
    const traceparent = `00-${traceId}-${spanId}-01`;
    running = await runRelay({ services: [invoices.service, payments.service], rules });
    await get(running, { traceparent, tracestate: "rojo=1" });
    await refund(running, 5, { traceparent });
    await running.close();
    expect(invoices.arrived.at(-1)?.headers).toMatchObject({ traceparent, tracestate: "rojo=1" });
    expect(bodies.at(-1)?.params._meta).toEqual({ traceparent });
  });
});
