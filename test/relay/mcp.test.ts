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

it("sends on what was decided, not the caller's bytes", async () => {
  let forwarded = "";
  payments.answer = (request, response) => {
    request.on("data", (chunk) => {
      forwarded += chunk;
    });
    request.on("end", () => response.setHeader("Content-Type", "application/json").end("{}"));
  };
  const call = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "get_invoice", arguments: { id: 1 } } };
  const good = JSON.stringify(call);
  await fetch(`${running.urlOf("payments")}/mcp`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json, text/event-stream" },
    body: good.replaceAll(":", " :\n ").replace("get_invoice", "get\\u005finvoice"),
  });
  expect(forwarded).toBe(good);
});

it("refuses plain HTTP at an MCP service", async () => {
  const arrived = payments.arrived.length;
  const response = await fetch(`${running.urlOf("payments")}/admin`);
  expect(response.status).toBe(405);
  expect(payments.arrived.length).toBe(arrived);
});
