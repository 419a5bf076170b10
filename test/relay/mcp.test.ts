import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { paymentsServer } from "./payments-server.js";
import { identity, type RunningRelay, runRelay, runUpstream, testAgent, type Upstream } from "./running-relay.js";

const RULES = `rules:
  - { name: reads, allow: { from: agents/tests, to: payments, tools: [get_invoice] } }
  - name: small-refunds
    allow: { from: agents/tests, to: payments, tools: [issue_refund] }
    when: args.amount <= 1000
    message: Refunds above 1000 need the finance lead.
`;

let payments: Upstream;
let running: RunningRelay;
const executed: string[] = [];

beforeAll(async () => {
  payments = await runUpstream("payments", "mcp", paymentsServer("json", executed));
  running = await runRelay({
    services: [payments.service],
    identities: [testAgent, identity("agents/nobody-here", { facts: { exePath: "/nowhere" } })],
    rules: RULES,
  });
});

beforeEach(() => {
  executed.length = 0;
  running.setRules(RULES);
});

afterAll(async () => {
  await running.close();
  payments.close();
});

async function connected(): Promise<Client> {
  const client = new Client({ name: "tests", version: "1.0.0" });
  const transport = new StreamableHTTPClientTransport(new URL(`${running.urlOf("payments")}/mcp`));
  await client.connect(transport as Parameters<Client["connect"]>[0]);
  return client;
}

describe.each(["json", "sse"] as const)("the official MCP client through both legs, answers as %s", (answers) => {
  let client: Client;
  beforeAll(async () => {
    payments.answer = paymentsServer(answers, executed);
    client = await connected();
  });
  afterAll(() => client.close());

  it("calls an allowed tool", async () => {
    const result = await client.callTool({ name: "get_invoice", arguments: { id: 1017 } });
    expect(result.content).toEqual([{ type: "text", text: "invoice 1017" }]);
    expect(executed).toEqual(["get_invoice 1017"]);
    const shown = running.events.find((event) => event.event === "call" && event.target === "get_invoice");
    expect(shown).toMatchObject({ verdict: "ALLOW", rule: "reads", summary: "get_invoice {id:1017}" });
  });

  it("has a denied call on record however long the name of its tool is", async () => {
    const denials = () =>
      running.record.entries.filter(({ kind, fields }) => kind === "decision" && fields.verdict === "DENY");
    const before = denials().length;
    await expect(client.callTool({ name: "x".repeat(200_000), arguments: {} })).rejects.toThrow(/Unknown tool/);
    expect(denials().length).toBeGreaterThan(before);
    for (const entry of denials()) expect(JSON.stringify(entry).length).toBeLessThan(10_000);
  });

  it("shows of a call no argument that a rule calls sensitive, whichever rule decides", async () => {
    running.setRules(`${RULES}  - name: card
    deny: { from: agents/tests, to: payments, tools: [issue_refund] }
    when: "has(args.payer) && args.payer.card == '1'"
    sensitive: [args.payer.card]
`);
    const summaryOf = async (payer: unknown) => {
      const before = running.events.length;
      await client.callTool({ name: "get_invoice", arguments: { id: 1017, payer } });
      const shown = running.events.slice(before).find((event) => event.event === "call");
      return shown !== undefined && "summary" in shown ? shown.summary : undefined;
    };
    expect(await summaryOf({ card: "4111", name: "A" })).toBe(
      'get_invoice {id:1017, payer:{card:(sensitive), name:"A"}}',
    );
    expect(await summaryOf([{ card: { number: "4111" } }])).toBe("get_invoice {id:1017, payer:[{card:(sensitive)}]}");
    running.setRules(RULES);
    expect(await summaryOf({ card: "4111" })).toBe('get_invoice {id:1017, payer:{card:"4111"}}');
    executed.length = 0;
  });

  it("sees only the tools that it could call with some arguments", async () => {
    const { tools } = await client.listTools();
    expect(tools.map(({ name }) => name).sort()).toEqual(["get_invoice", "issue_refund"]);
  });

  it("tells the model why a condition denied, and lets the same tool through where it holds", async () => {
    const denied = await client.callTool({ name: "issue_refund", arguments: { invoice: 1017, amount: 4200 } });
    expect(denied.isError).toBe(true);
    const [{ text }] = denied.content as [{ text: string }];
    expect(text).toContain("denied by policy small-refunds");
    expect(text).toContain("Refunds above 1000 need the finance lead.");
    expect(text).toMatch(/Decision [0-9a-z]{16}$/);
    expect(executed).toEqual([]);

    const allowed = await client.callTool({ name: "issue_refund", arguments: { invoice: 1017, amount: 900 } });
    expect(allowed.isError).toBeUndefined();
    expect(executed).toEqual(["issue_refund 900"]);
  });

  it("cannot tell a tool that no rule allows from one that does not exist", async () => {
    const denial = (name: string) =>
      client.callTool({ name, arguments: {} }).then(
        () => "allowed",
        (error: { code: number; message: string }) => `${error.code} ${error.message.replaceAll(name, "X")}`,
      );
    const hidden = await denial("drop_tables");
    expect(hidden).toBe("-32602 MCP error -32602: Unknown tool: X");
    expect(await denial("no_such_tool")).toBe(hidden);
    expect(executed).toEqual([]);
    const recorded = running.record.entries.findLast(({ fields }) => fields.target === "drop_tables");
    expect(recorded).toMatchObject({ kind: "decision", fields: { verdict: "DENY" } });
  });

  it("follows a policy that changes under the session", async () => {
    running.setRules("rules:\n  - { name: all, allow: { from: agents/tests, to: payments } }\n");
    const { tools } = await client.listTools();
    expect(tools.map(({ name }) => name)).toContain("drop_tables");
    await client.callTool({ name: "drop_tables", arguments: {} });
    expect(executed).toEqual(["drop_tables"]);
  });
});

it("opens no session for a caller that no rule lets do anything", async () => {
  running.setRules("rules: []\n");
  await expect(connected()).rejects.toMatchObject({ code: 403 });
  running.setRules(RULES);
  await (await connected()).close();
});

describe("messages that could be read in two ways", () => {
  const call = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "get_invoice", arguments: { id: 1 } } };
  const good = JSON.stringify(call);
  const post = (body: string | Buffer, headers: Record<string, string> = {}) =>
    fetch(`${running.urlOf("payments")}/mcp`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json, text/event-stream", ...headers },
      body,
    });

  const keys = (count: number) => Array.from({ length: count }, (_, index) => `"k${index}":0`).join(",");

  interface BadMessage {
    readonly what: string;
    readonly body: string | Buffer;
    readonly headers?: Record<string, string>;
    readonly status: number;
    readonly rule: string;
    readonly code?: number;
  }
  const json = (what: string, body: string | Buffer, rule: string): BadMessage => ({
    what,
    body,
    status: 400,
    rule,
    code: -32700,
  });
  const rpc = (what: string, body: unknown, rule = "jsonrpc-invalid"): BadMessage => ({
    ...{ what, body: typeof body === "string" ? body : JSON.stringify(body), status: 400, rule, code: -32600 },
  });
  const lie = (what: string, headers: Record<string, string>): BadMessage => ({
    ...{ what, body: good, headers, status: 400, rule: "mcp-header-mismatch", code: -32020 },
  });

  const bad: readonly BadMessage[] = [
    json("a key given twice", good.replace('"id":1}', '"id":1,"id":2}'), "json-duplicate-key"),
    json("the method given twice", good.replace("{", '{"method":"ping",'), "json-duplicate-key"),
    json("a key given twice, once escaped", good.replace('"name"', '"n\\u0061me":"x","name"'), "json-duplicate-key"),
    json("keys that differ by case (Go)", good.replace('"name"', '"Name":"drop_tables","name"'), "json-ambiguous-key"),
    json(
      "keys that fold alike (the long s)",
      good.replace('"params"', '"param\u017f":{},"params"'),
      "json-ambiguous-key",
    ),
    json("__proto__", good.replace('{"id":1}', '{"__proto__":{"id":1}}'), "json-ambiguous-key"),
    json("an integer beyond 2^53", good.replace('"id":1}', '"id":9007199254740993}'), "json-number"),
    json("a number beyond a double", good.replace('"id":1}', '"id":1e400}'), "json-number"),
    json("a lone surrogate", good.replace("get_invoice", "get_\\ud800"), "json-surrogate"),
    json("nesting deeper than 64", good.replace('"id":1}', `"id":${"[".repeat(70)}${"]".repeat(70)}}`), "json-depth"),
    json("an object of 10,001 keys", good.replace('"id":1}', `"id":1,${keys(10_000)}}`), "json-keys"),
    json("two documents", good + good, "json-malformed"),
    json("a comment", `${good}//`, "json-malformed"),
    json("single quotes", "{'a':1}", "json-malformed"),
    json("an unescaped line feed", good.replace("get_", "get\n"), "json-malformed"),
    json("an open string", '{"jsonrpc":"2', "json-malformed"),
    json("nothing", "", "json-malformed"),
    json("a byte order mark", `\ufeff${good}`, "json-bom"),
    json("UTF-16", Buffer.from(good, "utf16le"), "json-malformed"),
    json("invalid UTF-8", Buffer.from(good.replace("get_invoice", "get_\xff"), "latin1"), "json-utf8"),
    rpc("a batch", [call], "jsonrpc-batch"),
    rpc("tools/call without id", { ...call, id: undefined }),
    rpc("an id of null", { ...call, id: null }),
    rpc("a fractional id", { ...call, id: 1.5 }),
    rpc("no version", { ...call, jsonrpc: undefined }),
    rpc("an unknown member of the envelope", { ...call, Method: undefined, methods: "x" }),
    rpc("a request with a result", { ...call, result: {} }),
    rpc("params as a list", { ...call, params: ["get_invoice"] }),
    rpc("a tool without name", { ...call, params: {} }),
    rpc("a tool's name in another case", { ...call, params: { Name: "get_invoice" } }),
    rpc("arguments as text", { ...call, params: { name: "get_invoice", arguments: "{}" } }),
    rpc("a bare string", '"tools/call"'),
    lie("Mcp-Method that lies", { "Mcp-Method": "ping" }),
    lie("Mcp-Name that lies", { "Mcp-Name": "drop_tables" }),
    lie("an encoded Mcp-Name that lies", { "Mcp-Name": `=?base64?${Buffer.from("drop_tables").toString("base64")}?=` }),
    { what: "a form", body: good, headers: { "Content-Type": "text/plain" }, status: 415, rule: "content-type" },
    {
      what: "another charset",
      body: good,
      headers: { "Content-Type": "application/json; charset=utf-7" },
      status: 415,
      rule: "content-type",
    },
    {
      what: "an encoded body",
      body: good,
      headers: { "Content-Encoding": "gzip" },
      status: 415,
      rule: "content-encoding",
    },
    {
      what: "more than 4 MiB",
      body: good.replace('"id":1}', `"id":1,"x":"${"x".repeat(5_000_000)}"}`),
      status: 413,
      rule: "body-too-large",
    },
    {
      what: "an unknown method",
      body: JSON.stringify({ ...call, method: "tools/delete" }),
      status: 200,
      rule: "default",
      code: -32601,
    },
    {
      what: "a method with a space",
      body: JSON.stringify({ ...call, method: "tools/call " }),
      status: 200,
      rule: "default",
      code: -32601,
    },
    {
      what: "a method in another case",
      body: JSON.stringify({ ...call, method: "Tools/Call" }),
      status: 200,
      rule: "default",
      code: -32601,
    },
    {
      what: "a tool's name in another case",
      body: good.replace("get_invoice", "Get_Invoice"),
      status: 200,
      rule: "default",
      code: -32602,
    },
    {
      what: "a resource that no rule allows",
      body: JSON.stringify({ ...call, method: "resources/read", params: { uri: "a:b" } }),
      status: 200,
      rule: "default",
      code: 403,
    },
  ];

  it.each(bad)("refuses $what", async ({ body, headers, status, rule, code }) => {
    payments.answer = paymentsServer("json", executed);
    const arrived = payments.arrived.length;
    const control = await post(good, { "Mcp-Method": "tools/call", "Mcp-Name": "get_invoice" });
    expect(await control.json()).toMatchObject({ id: 1, result: { content: [{ text: "invoice 1" }] } });
    expect(payments.arrived.length).toBe(arrived + 1);

    const answer = await post(body, headers);
    const problem = (await answer.json()) as { error?: { code: number } };
    const recorded = running.record.entries.findLast(({ kind }) => kind === "decision");
    expect({ status: answer.status, rule: recorded?.fields.rule, code: problem.error?.code }).toEqual({
      status,
      rule,
      code,
    });
    expect(recorded?.fields.verdict).toBe("DENY");
    expect(payments.arrived.length).toBe(arrived + 1);
  });

  it("sends on what was decided, not the caller's bytes", async () => {
    let forwarded = "";
    payments.answer = (request, response) => {
      request.on("data", (chunk) => {
        forwarded += chunk;
      });
      request.on("end", () => response.setHeader("Content-Type", "application/json").end("{}"));
    };
    await post(good.replaceAll(":", " :\n ").replace("get_invoice", "get\\u005finvoice"));
    expect(forwarded).toBe(good);
  });
});

it("refuses plain HTTP at an MCP service", async () => {
  const arrived = payments.arrived.length;
  const response = await fetch(`${running.urlOf("payments")}/admin`);
  expect(response.status).toBe(405);
  expect(payments.arrived.length).toBe(arrived);
});
