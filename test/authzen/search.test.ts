import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { evaluate } from "../../src/authzen/evaluate.js";
import { createPageTokens } from "../../src/authzen/page-token.js";
import { questionOf } from "../../src/authzen/request-shape.js";
import { search } from "../../src/authzen/search.js";
import type { JsonObject } from "../../src/http/strict-json.js";
import { runs } from "../properties.js";
import { identity } from "../relay/running-relay.js";
import { exchange } from "./certification.js";
import { decidesBy, directory, type RunningAuthzen, runAuthzen } from "./running-authzen.js";

let running: RunningAuthzen;
afterEach(() => running?.close());

const users = (count: number) =>
  directory([
    ...Array.from({ length: count }, (_, index) => ({
      type: "user",
      id: `u${index}`,
      properties: { even: index % 2 === 0 },
    })),
    { type: "record", id: "r1", properties: {} },
  ]);
const evens = () => decidesBy(({ subject }) => subject.properties?.even === true);

const whoReads = { subject: { type: "user" }, action: { name: "read" }, resource: { type: "record", id: "r1" } };

async function post(path: string, body: unknown, as = running.unix as Parameters<typeof exchange>[0]) {
  const headers = { "content-type": "application/json" };
  const answer = await exchange(as, {
    method: "POST",
    path: `/access/v1/search/${path}`,
    headers,
    body: JSON.stringify(body),
  });
  return { status: answer.status, body: answer.status === 200 ? JSON.parse(answer.text) : answer.text };
}

describe("pages", () => {
  it("hold every result once, in order, and end", async () => {
    const point = evens();
    running = await runAuthzen({ change: () => ({ decisionPoint: () => point, entities: () => users(25) }) });
    const seen: string[] = [];
    let page: object = { limit: 4 };
    for (;;) {
      const { body } = await post("subject", { ...whoReads, page });
      expect(body.results.length).toBeLessThanOrEqual(4);
      expect(body.page.count).toBe(body.results.length);
      seen.push(...body.results.map(({ id }: { id: string }) => id));
      if (body.page.next_token === "") break;
      page = { token: body.page.next_token };
    }
    expect(seen).toEqual(Array.from({ length: 13 }, (_, index) => `u${index * 2}`));
    expect(running.record.entries.filter(({ kind }) => kind === "search").length).toBe(4);
  });

  it("are of the same search, by the same enforcement point, policies and limit", async () => {
    let decisionPoint = evens();
    running = await runAuthzen({ change: () => ({ decisionPoint: () => decisionPoint, entities: () => users(25) }) });
    const first = await post("subject", { ...whoReads, page: { limit: 4 } });
    const token = first.body.page.next_token;
    const next = { ...whoReads, page: { token } };
    expect((await post("subject", next)).status).toBe(200);
    expect((await post("subject", { ...next, page: { token, limit: 4 } })).status).toBe(200);
    expect((await post("subject", { ...next, page: { token, limit: 5 } })).status).toBe(400);
    expect((await post("subject", { ...next, action: { name: "write" } })).status).toBe(400);
    expect((await post("subject", { ...next, context: { a: 1 } })).status).toBe(400);
    expect((await post("subject", { ...next, page: { token, properties: { order: "down" } } })).status).toBe(400);
    expect((await post("subject", next, running.tlsAs("agents/gateway"))).status).toBe(400);
    const [from, limit, seal] = String(token).split(".");
    for (const forged of [`${Number(from) + 1}.${limit}.${seal}`, `${from}.1000.${seal}`, `${token}x`, "1.4.", 7, {}]) {
      expect((await post("subject", { ...next, page: { token: forged } })).status).toBe(400);
    }
    expect((await post("subject", next)).status).toBe(200);
    decisionPoint = { ...evens(), policyDigest: "1".repeat(64) };
    expect((await post("subject", next)).status).toBe(400);
  });

  it("have a limit that is a whole number; a page of none still says where to go on", async () => {
    const point = evens();
    running = await runAuthzen({ change: () => ({ decisionPoint: () => point, entities: () => users(25) }) });
    for (const limit of [-1, 1.5, "4", null, true]) {
      expect((await post("subject", { ...whoReads, page: { limit } })).status).toBe(400);
    }
    for (const page of [7, "x", []]) expect((await post("subject", { ...whoReads, page })).status).toBe(400);
    expect((await post("subject", { ...whoReads, page: { limit: 1_000_000 } })).status).toBe(200);
    expect((await post("subject", { ...whoReads, page: {} })).body.results).toHaveLength(13);
    const { page, results } = (await post("subject", { ...whoReads, page: { limit: 0 } })).body;
    expect(results).toEqual([]);
    expect(page).toEqual({ next_token: expect.stringMatching(/./), count: 0 });
  });
});

it("does not hold the event loop while it goes through many", async () => {
  const slow = decidesBy(() => {
    const until = performance.now() + 0.05;
    while (performance.now() < until);
    return false;
  });
  running = await runAuthzen({ change: () => ({ decisionPoint: () => slow, entities: () => users(2_000) }) });
  let turns = 0;
  let over = false;
  const count = () => {
    turns += 1;
    if (!over) setImmediate(count);
  };
  setImmediate(count);
  const { point, parts } = { point: { name: "owner", id: undefined, detail: "" }, parts: running.parts };
  const searching = { point, parts, tokens: createPageTokens(), isWanted: () => true, pause: undefined };
  await search("subject", whoReads as unknown as JsonObject, searching);
  over = true;
  // 2,000 questions of 50 µs are 50 slices of 2 ms.
  expect(turns).toBeGreaterThan(10);
});

it("finds identities, services, pinned tools and actions that the rules permit", async () => {
  running = await runAuthzen({
    rules: `rules:
  - { name: reads, allow: { from: agents/billing, to: payments, tools: [get_invoice] } }
  - { name: all, allow: { from: agents/root, to: payments } }
`,
    identities: [identity("agents/billing"), identity("agents/root")],
    change: () => ({ toolsOf: (service) => (service === "payments" ? ["get_invoice", "refund"] : []) }),
  });
  const server = "spiffe://shop.local/mcp/payments";
  const billing = { type: "spiffe", id: "spiffe://shop.local/agents/billing" };
  const tool = { type: "mcp-tool", id: server, properties: { tool: "get_invoice" } };
  const callers = await post("subject", {
    subject: { type: "spiffe" },
    action: { name: "tools/call" },
    resource: tool,
  });
  expect(callers.body.results).toEqual([billing, { type: "spiffe", id: "spiffe://shop.local/agents/root" }]);
  const tools = await post("resource", {
    subject: billing,
    action: { name: "tools/call" },
    resource: { type: "mcp-tool" },
  });
  expect(tools.body.results).toEqual([tool]);
  const servers = await post("resource", {
    subject: billing,
    action: { name: "tools/list" },
    resource: { type: "mcp" },
  });
  expect(servers.body.results).toEqual([{ type: "mcp", id: server }]);
  const actions = await post("action", { subject: billing, resource: { type: "mcp", id: server } });
  expect(actions.body.results).toEqual(
    ["initialize", "server/discover", "ping", "tools/list"].map((name) => ({ name })),
  );
});

it("agrees with evaluations: what is found is permitted, and what is not found is not", async () => {
  const names = ["agents/billing", "agents/planner", "agents/root"];
  const tools = ["get_invoice", "refund", "get_report"];
  const server = "spiffe://shop.local/mcp/payments";
  running = await runAuthzen({ identities: names.map((name) => identity(name)) });
  const rule = fc.record({
    effect: fc.constantFrom("allow", "deny"),
    from: fc.constantFrom(...names, "agents/*", "**"),
    tools: fc.uniqueArray(fc.constantFrom(...tools, "get_*"), { minLength: 1, maxLength: 2 }),
    when: fc.option(fc.constantFrom("args.amount <= 10", "args.amount > 3"), { nil: undefined }),
  });
  const point = { name: "owner", id: undefined, detail: "" };
  await fc.assert(
    fc.asyncProperty(
      fc.array(rule, { maxLength: 6 }),
      fc.integer({ min: 0, max: 20 }),
      fc.constantFrom(...names),
      fc.constantFrom(...tools),
      fc.integer({ min: 1, max: 4 }),
      async (rules, amount, name, tool, limit) => {
        running.setRules(
          JSON.stringify({
            rules: rules.map(({ effect, when, from, tools }, index) => ({
              name: `r${index}`,
              [effect]: { from, to: "payments", tools },
              ...(when && { when }),
            })),
          }),
        );
        const parts = { ...running.parts, toolsOf: () => tools };
        const context = { args: { amount } };
        const action = { name: "tools/call" };
        const subject = { type: "spiffe", id: `spiffe://shop.local/${name}` };
        const resource = { type: "mcp-tool", id: server, properties: { tool } };
        const all = async (kind: "subject" | "resource" | "action", body: object) => {
          const tokens = createPageTokens();
          const found: Record<string, unknown>[] = [];
          let page: object = { limit };
          for (;;) {
            const asked = { ...body, context, page } as unknown as JsonObject;
            const searching = { point, parts, tokens, isWanted: () => true, pause: undefined };
            const one = await search(kind, asked, searching);
            found.push(...one.results);
            if (one.page.next_token === "") return found;
            page = { token: one.page.next_token };
          }
        };
        const permitted = async (body: object) =>
          (await evaluate(questionOf({ ...body, context } as unknown as JsonObject), point, parts)).decision;
        const subjects = await all("subject", { subject: { type: "spiffe" }, action, resource });
        for (const each of running.registry.identities) {
          const one = { type: "spiffe", id: each.id.toString() };
          const isFound = subjects.some(({ id }) => id === one.id);
          expect(await permitted({ subject: one, action, resource })).toBe(isFound);
        }
        const found = await all("resource", { subject, action, resource: { type: "mcp-tool" } });
        for (const each of tools) {
          const one = { type: "mcp-tool", id: server, properties: { tool: each } };
          const isFound = found.some(({ properties }) => (properties as { tool: string }).tool === each);
          expect(await permitted({ subject, action, resource: one })).toBe(isFound);
        }
        const actions = await all("action", { subject, resource });
        expect(await permitted({ subject, action, resource })).toBe(actions.length === 1);
      },
    ),
    { numRuns: runs(100) },
  );
});
