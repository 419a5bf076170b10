import { once } from "node:events";
import type { RequestListener } from "node:http";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { afterEach, describe, expect, it } from "vitest";
import {
  ask,
  type DurableRelay,
  type DurableRelayOptions,
  held,
  PATIENT,
  runDurableRelay,
  send,
} from "./durable-relay.js";
import { paymentsServer } from "./payments-server.js";

let relay: DurableRelay | undefined;

async function running(options: Partial<DurableRelayOptions> & { answer: RequestListener }): Promise<DurableRelay> {
  relay = await runDurableRelay({ protocol: "mcp", ...options });
  return relay;
}

afterEach(async () => {
  await relay?.close();
  relay = undefined;
});

const headers = { "Content-Type": "application/json", Accept: "application/json, text/event-stream" };
const toolCall = (id: number | string, args: object = { amount: 5 }, more: object = {}) =>
  JSON.stringify({
    jsonrpc: "2.0",
    id,
    method: "tools/call",
    params: { name: "issue_refund", arguments: args, ...more },
  });
const post = (url: URL, key: string, body: string) => ask(url, { key, body, path: "/mcp", headers });
const dataOf = (text: string) =>
  JSON.parse(/^data: (.*)$/m.exec(text)?.[1] ?? text) as { id: unknown; result: unknown };

describe.each(["json", "sse"] as const)("tools/call with a key, answered as %s", (form) => {
  it("runs once; the answer comes under the id of who asks", async () => {
    const executed: string[] = [];
    const { url } = await running({ answer: paymentsServer(form, executed) });
    const args = { invoice: 1, amount: 5 };
    const first = await post(url, "k", toolCall(1, args));
    const again = await post(url, "k", toolCall("two", args));
    const other = await post(url, "k", toolCall(3, { invoice: 1, amount: 6 }));
    expect(executed).toEqual(["issue_refund 5"]);
    expect(first.headers["content-type"]).toBe(form === "json" ? "application/json" : "text/event-stream");
    expect(again.headers).toMatchObject({
      "content-type": first.headers["content-type"],
      "idempotency-replayed": "true",
    });
    expect(dataOf(first.body).id).toBe(1);
    expect(dataOf(again.body)).toEqual({ ...dataOf(first.body), id: "two" });
    expect(other.status).toBe(422);
    expect(JSON.parse(other.body)).toMatchObject({ id: 3, error: { code: 422, data: { code: "key-reused" } } });
  });

  it("does so for the official client, which counts its ids anew and reports progress elsewhere", async () => {
    const executed: string[] = [];
    const { url } = await running({ answer: paymentsServer(form, executed) });
    const texts: unknown[] = [];
    for (const calls of [1, 3]) {
      const client = new Client({ name: "tests", version: "1.0.0" });
      const transport = new StreamableHTTPClientTransport(new URL("/mcp", url), {
        requestInit: { headers: { "Idempotency-Key": '"refund 1"' } },
      });
      await client.connect(transport as Parameters<Client["connect"]>[0]);
      for (let call = 0; call < calls; call += 1) {
        await client.listTools();
        const args = { name: "issue_refund", arguments: { invoice: 1, amount: 5 } };
        const { content } = await client.callTool(args, undefined, { onprogress: () => undefined });
        texts.push(content);
      }
      await client.close();
    }
    expect(executed).toEqual(["issue_refund 5"]);
    expect(new Set(texts.map((text) => JSON.stringify(text))).size).toBe(1);
    expect(texts).toHaveLength(4);
  });
});

describe("a stream of events", () => {
  const event = (message: object) => `id: 7\nevent: message\ndata: ${JSON.stringify(message)}\n\n`;

  it("passes as it comes; only the response is given again, with its numbers as they were", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    const first = post(url, "k", toolCall(1));
    const { response } = await service.at(0);
    response.writeHead(200, { "Content-Type": "text/event-stream", "Mcp-Session-Id": "s" });
    const progress = event({
      jsonrpc: "2.0",
      method: "notifications/progress",
      params: { progressToken: 1, progress: 1 },
    });
    const question = event({ jsonrpc: "2.0", id: 1, method: "elicitation/create", params: {} });
    const result = '{"jsonrpc":"2.0","id":1,"result":{"structuredContent":{"n":12345678901234567890,"f":1.0}}}';
    response.write(progress);
    response.write(question);
    response.end(`data: ${result}\n\n`);
    expect((await first).body).toBe(`${progress}${question}data: ${result}\n\n`);
    const again = await post(url, "k", toolCall(9));
    expect(again.body).toBe(
      'event: message\ndata: {"jsonrpc":"2.0","result":{"structuredContent":{"n":12345678901234567890,"f":1.0}},"id":9}\n\n',
    );
    expect(service.arrived).toHaveLength(1);
  });

  it("that stays open after the response has answered all the same", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    void post(url, "k", toolCall(1)).catch(() => undefined);
    const { response } = await service.at(0);
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(event({ jsonrpc: "2.0", id: 1, result: {} }));
    expect((await post(url, "k", toolCall(2))).headers["idempotency-replayed"]).toBe("true");
    response.end();
  });

  it("that its caller leaves after the response ends at the service too", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    const { request, received } = send(url, { key: "k", body: toolCall(1), path: "/mcp", headers });
    const { response } = await service.at(0);
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(event({ jsonrpc: "2.0", id: 1, result: {} }));
    await expect.poll(received, PATIENT).toContain("result");
    const cut = once(response, "close");
    request.destroy();
    await cut;
    expect((await post(url, "k", toolCall(2))).headers["idempotency-replayed"]).toBe("true");
  });

  it.each(["before the response", "in the middle of it"])("that ends %s has no known outcome", async (where) => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    const first = post(url, "k", toolCall(1));
    const { response } = await service.at(0);
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(": here\n\n");
    response.end(where === "before the response" ? "" : 'data: {"jsonrpc":"2.0","id":1,"result":{}}');
    await first;
    const again = await post(url, "k", toolCall(2));
    expect(again.status).toBe(409);
    expect(JSON.parse(again.body)).toMatchObject({ id: 2, error: { code: 409, data: { code: "outcome-unknown" } } });
    expect(service.arrived).toHaveLength(1);
  });

  it("with the response of another call is not taken for the answer", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    const first = post(url, "k", toolCall(1));
    const { response } = await service.at(0);
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.end(event({ jsonrpc: "2.0", id: 2, result: {} }));
    await expect(first).rejects.toThrow("aborted");
    expect((await post(url, "k", toolCall(2))).status).toBe(409);
  });

  it("nor is a document with it, which nobody is given", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    for (const [asked, answered, outcome] of [
      [1, 1, 200],
      [2, 3, 409],
    ] as const) {
      const first = post(url, `k${asked}`, toolCall(asked));
      const { response } = await service.at(asked - 1);
      response.writeHead(200, { "Content-Type": "application/json" });
      response.end(JSON.stringify({ jsonrpc: "2.0", id: answered, result: { text: "of somebody" } }));
      expect((await first).body.includes("of somebody")).toBe(outcome === 200);
      const again = await post(url, `k${asked}`, toolCall(9));
      expect({ status: again.status, has: again.body.includes("of somebody") }).toEqual({
        ...{ status: outcome, has: outcome === 200 },
      });
    }
  });

  it("with a response that is too large to be kept is passed on, and not sent again", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    const first = post(url, "k", toolCall(1));
    const { response } = await service.at(0);
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.end(event({ jsonrpc: "2.0", id: 1, result: { text: "x".repeat(1024 * 1024) } }));
    expect((await first).body.length).toBeGreaterThan(1024 * 1024);
    const again = await post(url, "k", toolCall(2));
    expect(JSON.parse(again.body)).toMatchObject({ error: { data: { code: "answer-too-large" } } });
  });
});

describe("what is the same call", () => {
  it.each([
    ["another id", toolCall("b"), true],
    [
      "members in another order",
      '{"params":{"arguments":{"amount":5},"name":"issue_refund"},"method":"tools/call","id":1,"jsonrpc":"2.0"}',
      true,
    ],
    ["another progress token", toolCall(1, { amount: 5 }, { _meta: { progressToken: 9 } }), true],
    ["another trace", toolCall(1, { amount: 5 }, { _meta: { traceparent: "00-1" } }), true],
    ["other metadata", toolCall(1, { amount: 5 }, { _meta: { tenant: "b" } }), false],
    ["other arguments", toolCall(1, { amount: 6 }), false],
    ["another tool", toolCall(1).replace("issue_refund", "issue_refunds"), false],
  ])("%s", async (_, other, isSame) => {
    let calls = 0;
    const { url } = await running({
      answer: (request, response) => {
        calls += 1;
        request.resume().on("end", () => {
          response.setHeader("Content-Type", "application/json").end('{"jsonrpc":"2.0","id":1,"result":{}}');
        });
      },
    });
    await post(url, "k", toolCall(1));
    expect((await post(url, "k", other)).status).toBe(isSame ? 200 : 422);
    expect(calls).toBe(1);
  });

  it("a tool on the list of idempotent ones is called again where its outcome is unknown; another is not", async () => {
    let calls = 0;
    const { url } = await running({
      service: { idempotent: [{ tool: "issue_*" }] },
      answer: (request, response) => {
        calls += 1;
        request.resume().on("end", () => {
          if (calls % 2 === 1) request.socket.destroy();
          else response.setHeader("Content-Type", "application/json").end('{"jsonrpc":"2.0","id":1,"result":{}}');
        });
      },
    });
    await post(url, "k", toolCall(1));
    expect((await post(url, "k", toolCall(1))).status).toBe(200);
    await post(url, "other", toolCall(1).replace("issue_refund", "get_invoice"));
    expect((await post(url, "other", toolCall(1).replace("issue_refund", "get_invoice"))).status).toBe(409);
    expect(calls).toBe(3);
  });

  it("a bad key is refused as a message of JSON-RPC", async () => {
    const { url } = await running({ answer: paymentsServer("json", []) });
    const refused = await post(url, '"', toolCall(4));
    expect(refused.status).toBe(400);
    expect(JSON.parse(refused.body)).toMatchObject({ id: 4, error: { data: { code: "idempotency-key" } } });
  });
});
