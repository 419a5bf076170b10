import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RunningRelay, runRelay, runUpstream, type Upstream } from "./running-relay.js";
import { CANARY, SPAN_ID as spanId, traced as tracedBy, TRACE_ID as traceId } from "./traced-relay.js";

const rules = `rules:
  - { name: reads, allow: { from: agents/tests, to: invoices, method: GET } }
  - { name: refunds, allow: { from: agents/tests, to: payments, tools: [refund] }, when: args.amount < 10 }
`;

describe("the trace of a call", () => {
  let invoices: Upstream;
  let payments: Upstream;
  let running: RunningRelay;
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
  });
  afterAll(() => {
    for (const one of [invoices, payments]) one.close();
  });

  const traced = (count: number, calls: (relay: RunningRelay) => Promise<unknown>) =>
    tracedBy({ services: [invoices.service, payments.service], rules, count }, calls);
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
    const { client, server, types, resources } = await traced(2, (relay) =>
      get(relay, { traceparent: `00-${traceId}-${spanId}-01`, tracestate: "rojo=1" }),
    );
    expect(client).toMatchObject({ traceId, parentSpanId: spanId, traceState: "rojo=1", name: "GET invoices" });
    expect(server).toMatchObject({ traceId, parentSpanId: client?.spanId, name: "GET invoices" });
    expect(server?.attributes).toMatchObject({
      ...{ "http.request.method": "GET", "http.response.status_code": 200, "url.path": "/v1" },
      ...{ "agentid.caller": "spiffe://shop.local/agents/tests", "agentid.verdict": "ALLOW", "agentid.rule": "reads" },
    });
    const { traceparent, tracestate } = invoices.arrived.at(-1)?.headers ?? {};
    expect([traceparent, tracestate]).toEqual([`00-${traceId}-${server?.spanId}-01`, "rojo=1"]);
    expect(types.at(-1)).toBe("POST /v1/traces application/x-protobuf");
    expect(resources.at(-1)).toMatchObject({ "service.name": "agentid" });
  });

  it("begins where a caller says nothing, or nothing that can be read", async () => {
    const { spans } = await traced(4, async (relay) => {
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
    const { spans } = await traced(2, (relay) => get(relay, { traceparent: `00-${traceId}-${spanId}-00` }));
    expect(spans).toEqual([]);
    expect(invoices.arrived.at(-1)?.headers.traceparent).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`));
  });

  it("holds no query, no header, no body and no argument", async () => {
    const { spans, sent } = await traced(3, async (relay) => {
      const answer = await fetch(`${relay.urlOf("invoices")}/v1?token=${CANARY}`, { headers: { "x-note": CANARY } });
      await answer.text();
      const url = `${relay.urlOf("payments")}/mcp?token=${CANARY}`;
      const params = { name: "refund", arguments: { amount: 5, note: CANARY } };
      await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json", accept: "application/json", cookie: CANARY },
        body: JSON.stringify({ jsonrpc: "2.0", id: CANARY, method: "tools/call", params }),
      }).then((response) => response.text());
    });
    expect(spans.map(({ name }) => name).sort()).toEqual(["GET invoices", "GET invoices", "tools/call refund"]);
    expect(sent).toContain("/v1");
    expect(sent).not.toContain(CANARY);
    expect(invoices.arrived.at(-1)).toMatchObject({ url: `/v1?token=${CANARY}`, headers: { "x-note": CANARY } });
    expect(JSON.stringify(bodies.at(-1))).toContain(CANARY);
  });

  it("shows a denial and its rule", async () => {
    const { client, server } = await traced(2, async (relay) => {
      await fetch(`${relay.urlOf("invoices")}/v1`, { method: "DELETE" }).then((response) => response.text());
    });
    expect(server?.attributes).toMatchObject({
      ...{ "agentid.verdict": "DENY", "agentid.rule": "default", "http.response.status_code": 403 },
    });
    // An error of who called, and none of who answered.
    expect([client?.status, client?.attributes["error.type"], server?.status]).toEqual([2, "403", 0]);
  });

  it("of an MCP message may stand in its body (_meta), and goes on there too", async () => {
    const meta = { traceparent: `00-${traceId}-${spanId}-01`, other: "kept" };
    const { spans } = await traced(1, (relay) => refund(relay, 5, meta));
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
