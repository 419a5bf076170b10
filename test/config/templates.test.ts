import { join } from "node:path";
import { text } from "node:stream/consumers";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { describe, expect, it } from "vitest";
import { loadConfig } from "../../src/config/load.js";
import { runPolicyTests } from "../../src/policy/fixtures.js";
import { policyNamesOf } from "../../src/policy/policy-names.js";
import { loadPolicySet } from "../../src/policy/policy-set.js";
import { answering, runAgent, startService, templates } from "./template-programs.js";

describe.each(["minimal", "mcp-server"])("template %s", (name) => {
  it("has a configuration and policies without a problem, and its policy tests pass", async () => {
    const config = await loadConfig(join(templates, name, "agentid.yaml"));
    const { set, problems } = await loadPolicySet(config.policiesDirectory, policyNamesOf(config));
    expect(problems).toEqual([]);
    if (set === undefined) throw new Error("no policy set");
    const report = await runPolicyTests(config.policiesDirectory, set);
    expect(report).toMatchObject({ failed: 0, problems: [], untested: [] });
    expect(report.passed).toBeGreaterThan(0);
  });
});

describe("minimal: the programs", () => {
  it("run against each other, and the service ends when it is asked to", async () => {
    const hello = await startService("minimal/services/hello.js");
    expect(await runAgent(process.execPath, "minimal/agents/greeter.js", { AGENTID_URL_HELLO: hello.url })).toEqual({
      code: 0,
      stdout: "greeter: GET /hello said: hello, stranger\ngreeter: GET /secret said: the secret, stranger\n",
      stderr: "",
    });
    expect(await hello.stop()).toBe(0);
  });

  it("the service knows its caller by the relay's word", async () => {
    const hello = await startService("minimal/services/hello.js");
    const response = await fetch(`${hello.url}/hello`, {
      headers: { "X-Forwarded-Client-Cert": "By=spiffe://a/b;Hash=00;URI=spiffe://hello.local/agents/greeter" },
    });
    expect(await response.text()).toBe("hello, spiffe://hello.local/agents/greeter\n");
  });

  it("the agent says why it was refused", async () => {
    const url = await answering((_, response) => {
      response.writeHead(403, { "Content-Type": "application/problem+json" });
      response.end(JSON.stringify({ detail: "no rule allows it. Decision 7f3k" }));
    });
    const { stdout } = await runAgent(process.execPath, "minimal/agents/greeter.js", { AGENTID_URL_HELLO: url });
    expect(stdout).toContain("greeter: GET /secret refused: no rule allows it. Decision 7f3k\n");
  });

  it("say how they are started when they were not", async () => {
    const agent = await runAgent(process.execPath, "minimal/agents/greeter.js", {});
    expect(agent).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("agentid run greeter -- node agents/greeter.js"),
    });
    const service = await runAgent(process.execPath, "minimal/services/hello.js", {});
    expect(service).toMatchObject({ code: 2, stderr: expect.stringContaining("agentid dev") });
  });
});

describe("mcp-server: agents/billing.py", () => {
  const billing = (url: string) => runAgent("python3", "mcp-server/agents/billing.py", { AGENTID_URL_PAYMENTS: url });
  /** A server that lets the session begin and answers every tool call as given. */
  const onToolCall = (answer: (id: number) => { status?: number; type?: string; body: string }) =>
    answering(async (request, response) => {
      const message = JSON.parse(await text(request)) as { id?: number; method: string };
      if (message.id === undefined) return response.writeHead(202).end();
      const initialized = {
        jsonrpc: "2.0",
        id: message.id,
        result: { protocolVersion: "2025-11-25", capabilities: {} },
      };
      const chosen = message.method === "initialize" ? { body: JSON.stringify(initialized) } : answer(message.id);
      const { status = 200, type = "application/json", body } = { status: 200, type: "application/json", ...chosen };
      return response.writeHead(status, { "Content-Type": type }).end(body);
    });

  it("reads an invoice and, where nobody stops it, refunds", async () => {
    const payments = await startService("mcp-server/mcp/payments.js");
    expect(await billing(payments.url)).toEqual({
      code: 0,
      stdout: "billing: invoice 1017 read\nbilling: 4200 refunded\n",
      stderr: "",
    });
    expect(await payments.stop()).toBe(0);
  });

  it.each([
    [
      "a tool result",
      (id: number) => ({
        body: JSON.stringify({
          jsonrpc: "2.0",
          id,
          result: { content: [{ type: "text", text: "denied: why" }], isError: true },
        }),
      }),
    ],
    [
      "a JSON-RPC error",
      (id: number) => ({
        body: JSON.stringify({ jsonrpc: "2.0", id, error: { code: -32602, message: "denied: why" } }),
      }),
    ],
    [
      "a problem document",
      () => ({ status: 403, type: "application/problem+json", body: JSON.stringify({ detail: "denied: why" }) }),
    ],
    [
      "an event stream",
      (id: number) => ({
        type: "text/event-stream",
        body: `event: message\ndata: ${JSON.stringify({ jsonrpc: "2.0", id, error: { code: 1, message: "denied: why" } })}\n\n`,
      }),
    ],
  ])("prints the reason of a refusal that comes as %s", async (_, answer) => {
    expect(await billing(await onToolCall(answer))).toMatchObject({
      code: 0,
      stdout: "billing: invoice 1017 refused: denied: why\nbilling: refund refused: denied: why\n",
    });
  });

  it("prints the status where there is no reason", async () => {
    const { stdout } = await billing(await onToolCall(() => ({ status: 502, body: "oops" })));
    expect(stdout).toContain("billing: refund refused: HTTP 502 Bad Gateway\n");
  });

  it("says how it is started, and that payments is out of reach", async () => {
    expect(await runAgent("python3", "mcp-server/agents/billing.py", {})).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("agentid run billing -- python3 agents/billing.py"),
    });
    expect(await billing("http://127.0.0.1:1")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("out of reach"),
    });
  });
});

describe("mcp-server: mcp/payments.js", () => {
  it("serves the official client", async () => {
    const payments = await startService("mcp-server/mcp/payments.js");
    const client = new Client({ name: "test", version: "1" });
    await client.connect(new StreamableHTTPClientTransport(new URL(`${payments.url}/mcp`)));
    expect((await client.listTools()).tools.map((tool) => tool.name)).toEqual([
      "get_invoice",
      "list_invoices",
      "issue_refund",
    ]);
    await client.ping();
    expect(await client.callTool({ name: "get_invoice", arguments: { id: 1017 } })).toMatchObject({
      isError: false,
      content: [{ type: "text", text: expect.stringContaining("North Mill") }],
    });
    expect(await client.callTool({ name: "list_invoices" })).toMatchObject({ isError: false });
    const refund = (amount: unknown) => client.callTool({ name: "issue_refund", arguments: { invoice: 1017, amount } });
    expect(await refund(900)).toMatchObject({
      isError: false,
      content: [{ text: expect.stringContaining('"refunded":900') }],
    });
    expect(await refund(4000)).toMatchObject({
      isError: true,
      content: [{ text: "more than what is left of invoice 1017" }],
    });
    expect(await refund("many")).toMatchObject({ isError: true });
    await expect(client.callTool({ name: "drop_tables" })).rejects.toMatchObject({ code: -32602 });
    await client.close();
  });

  it.each([
    ["not JSON", "{", 400, { error: { code: -32700 }, id: null }],
    ["a batch", "[]", 400, { error: { code: -32600 }, id: null }],
    ["another JSON-RPC", '{"jsonrpc":"1.0","id":1,"method":"ping"}', 400, { error: { code: -32600 } }],
    ["an unknown method", '{"jsonrpc":"2.0","id":"a","method":"toString"}', 200, { id: "a", error: { code: -32601 } }],
    [
      "params that are a list",
      '{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}',
      200,
      { error: { code: -32602 } },
    ],
    [
      "a tool that every object has",
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"toString"}}',
      200,
      { error: { code: -32602 } },
    ],
    [
      "an older version",
      '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}',
      200,
      { result: { protocolVersion: "2025-06-18" } },
    ],
    [
      "an unknown version",
      '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"1999-01-01"}}',
      200,
      { result: { protocolVersion: "2025-11-25" } },
    ],
    ["a notification", '{"jsonrpc":"2.0","method":"notifications/initialized"}', 202, undefined],
  ])("answers %s by the standards", async (_, body, status, answer) => {
    const payments = await startService("mcp-server/mcp/payments.js");
    const response = await fetch(`${payments.url}/mcp`, { method: "POST", body });
    expect(response.status).toBe(status);
    const said = await response.text();
    if (answer === undefined) expect(said).toBe("");
    else expect(JSON.parse(said)).toMatchObject(answer);
  });

  it("refuses other paths, methods, origins, versions and sizes", async () => {
    const payments = await startService("mcp-server/mcp/payments.js");
    const ping = { method: "POST", body: '{"jsonrpc":"2.0","id":1,"method":"ping"}' };
    const status = async (path: string, init: RequestInit) => (await fetch(payments.url + path, init)).status;
    expect(await status("/mcp", ping)).toBe(200);
    expect(await status("/mcp", { ...ping, headers: { "MCP-Protocol-Version": "2025-11-25" } })).toBe(200);
    expect(await status("/", ping)).toBe(404);
    expect(await status("/mcp", { method: "GET" })).toBe(405);
    expect(await status("/mcp", { ...ping, headers: { Origin: "http://evil.example" } })).toBe(403);
    expect(await status("/mcp", { ...ping, headers: { "MCP-Protocol-Version": "1999-01-01" } })).toBe(400);
    expect(await status("/mcp", { method: "POST", body: `"${"x".repeat(1 << 20)}"` })).toBe(400);
    expect(await status("/mcp", ping)).toBe(200);
  });
});
