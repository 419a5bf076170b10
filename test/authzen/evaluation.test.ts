import { afterEach, describe, expect, it } from "vitest";
import { identity } from "../relay/running-relay.js";
import { exchange } from "./certification.js";
import { decidesBy, directory, payments, type RunningAuthzen, runAuthzen } from "./running-authzen.js";

const billing = "spiffe://shop.local/agents/billing";
const server = "spiffe://shop.local/mcp/payments";
const rules = `rules:
  - { name: reads, allow: { from: agents/billing, to: payments, tools: [get_invoice] } }
  - { name: small, allow: { from: agents/billing, to: payments, tools: [refund] }, when: "args.amount <= 10", message: Ask the lead. }
  - { name: browses, allow: { from: agents/billing, to: payments, method: [resources/read] }, when: "args.uri == 'file:///a'" }
`;

let running: RunningAuthzen;
afterEach(() => running.close());

const start = async (options: Parameters<typeof runAuthzen>[0] = {}) => {
  running = await runAuthzen({
    rules,
    identities: [identity("agents/billing"), identity("agents/planner")],
    ...options,
  });
};

async function post(path: string, body: unknown) {
  const headers = { "content-type": "application/json" };
  const answer = await exchange(running.unix, {
    method: "POST",
    path: `/access/v1/${path}`,
    headers,
    body: JSON.stringify(body),
  });
  return { status: answer.status, body: answer.status === 200 ? JSON.parse(answer.text) : answer.text };
}

const toolCall = (tool: string, args: object = {}, properties?: object) => ({
  subject: { type: "spiffe", id: billing, ...(properties && { properties }) },
  action: { name: "tools/call" },
  resource: { type: "mcp-tool", id: server, properties: { tool } },
  context: { args },
});

const recorded = () => running.record.entries.filter(({ kind }) => kind === "decision").map(({ fields }) => fields);

describe("an evaluation", () => {
  it("is decided by the rules in force, is on record, is shown, and names its decision", async () => {
    await start();
    const { body } = await post("evaluation", toolCall("refund", { amount: 50 }));
    expect(body).toEqual({
      decision: false,
      context: {
        id: expect.stringMatching(/^[0-9a-z]{16}$/),
        reason_admin: { en: expect.stringContaining("50 <= 10 is false") },
        reason_user: { en: "Ask the lead." },
      },
    });
    expect(recorded()).toEqual([
      expect.objectContaining({
        decision: body.context.id,
        verdict: "DENY",
        leg: "authzen",
        enforcementPoint: "spiffe://shop.local/agents/tests",
        caller: billing,
        service: "payments",
        action: "tools/call",
        target: "refund",
        rule: "small",
        requestDigest: expect.stringMatching(/^[0-9a-f]{64}$/),
      }),
    ]);
    expect(running.events.filter(({ event }) => event === "call")).toEqual([
      expect.objectContaining({ verdict: "DENY", caller: "agents/billing", service: "payments", protocol: "authzen" }),
    ]);
    expect((await post("evaluation", toolCall("refund", { amount: 5 }))).body.decision).toBe(true);
  });

  it("is denied for an identity that agentid.yaml does not have, and for a revoked one", async () => {
    const wide = "rules:\n  - { name: all, allow: { from: agents/*, to: payments } }\n";
    let revoked = false;
    await start({
      rules: wide,
      change: ({ registry }) => ({ registry: { ...registry, find: registry.find, isRevoked: () => revoked } }),
    });
    expect((await post("evaluation", toolCall("x"))).body.decision).toBe(true);
    const unknown = { ...toolCall("x"), subject: { type: "spiffe", id: "spiffe://shop.local/agents/nobody" } };
    expect((await post("evaluation", unknown)).body).toMatchObject({
      decision: false,
      context: { reason_admin: { en: "agentid.yaml has no identity agents/nobody" } },
    });
    revoked = true;
    expect((await post("evaluation", toolCall("x"))).body).toMatchObject({ decision: false });
  });

  it("does not believe an enforcement point what only we know of a workload", async () => {
    const point = decidesBy(({ subject }) => subject.properties?.evidence === undefined);
    let above: string[][] = [];
    await start({ change: () => ({ decisionPoint: () => point, launchedBy: () => above }) });
    const said = { evidence: "kernel", launched_by: [], labels: { team: "root" }, mood: "good" };
    const { body } = await post("evaluation", toolCall("x", {}, said));
    expect(body.decision).toBe(true);
    expect(point.asked.at(-1)?.subject.properties).toEqual({ mood: "good" });
    above = [["spiffe://shop.local/agents/planner"], []];
    await post("evaluation", toolCall("x", {}, said));
    expect(point.asked.at(-1)?.subject.properties).toEqual({
      mood: "good",
      launched_by: ["spiffe://shop.local/agents/planner"],
    });
    above = [["spiffe://shop.local/agents/gone"]];
    expect((await post("evaluation", toolCall("x"))).body).toMatchObject({ decision: false });
  });

  it("lays what is said of users and records over entities.yaml, key by key", async () => {
    const point = decidesBy(() => true);
    const entities = directory([
      { type: "user", id: "alice", properties: { team: "finance", level: 1 } },
      { type: "record", id: "r1", properties: { status: "active" } },
    ]);
    await start({ change: () => ({ decisionPoint: () => point, entities: () => entities }) });
    await post("evaluation", {
      subject: { type: "user", id: "alice", properties: { level: 2 } },
      action: { name: "read" },
      resource: { type: "record", id: "r1" },
    });
    expect(point.asked.at(-1)).toMatchObject({
      subject: { properties: { team: "finance", level: 2 } },
      resource: { properties: { status: "active" } },
    });
  });

  it("permits with obligations only whoever says that it knows them", async () => {
    const obligation = { id: "o1", type: "approval", properties: { by: "lead" } };
    await start({ change: () => ({ decisionPoint: () => decidesBy(() => true, [obligation]) }) });
    const naive = await post("evaluation", toolCall("x"));
    expect(naive.body).toMatchObject({ decision: false });
    expect(naive.body.context.obligations).toBeUndefined();
    const other = await post("evaluation", { ...toolCall("x"), context: { supported_obligations: ["step-up"] } });
    expect(other.body.decision).toBe(false);
    const able = await post("evaluation", { ...toolCall("x"), context: { supported_obligations: ["approval"] } });
    expect(able.body).toMatchObject({ decision: true, context: { obligations: [obligation] } });
    expect(recorded().map(({ verdict }) => verdict)).toEqual(["DENY", "DENY", "ALLOW"]);
  });

  it("is answered 500 without a decision where the decision point breaks", async () => {
    let broken = true;
    await start({
      change: () => ({
        decisionPoint: () => {
          if (broken) throw new Error("it broke");
          return decidesBy(() => true);
        },
      }),
    });
    const failed = await post("evaluation", toolCall("x"));
    expect(failed.status).toBe(500);
    broken = false;
    expect((await post("evaluation", toolCall("x"))).body.decision).toBe(true);
  });
});

it("the metadata are the standard's members and those of the obligations profile, and nothing that has no value", async () => {
  let types: string[] = [];
  await start({ change: () => ({ obligations: () => types }) });
  const metadata = async () => {
    const answer = await exchange(running.unix, { method: "GET", path: "/.well-known/authzen-configuration" });
    return JSON.parse(answer.text);
  };
  const base = "http://localhost";
  const always = {
    policy_decision_point: base,
    access_evaluation_endpoint: `${base}/access/v1/evaluation`,
    access_evaluations_endpoint: `${base}/access/v1/evaluations`,
    search_subject_endpoint: `${base}/access/v1/search/subject`,
    search_resource_endpoint: `${base}/access/v1/search/resource`,
    search_action_endpoint: `${base}/access/v1/search/action`,
  };
  expect(await metadata()).toEqual(always);
  types = ["approval"];
  expect(await metadata()).toEqual({ ...always, supported_obligations: ["approval"] });
});

describe("a question in the shape of COAZ-MCP", () => {
  const coaz = (action: string, resource: object, context: object = {}) => ({
    subject: { type: "identity", id: billing },
    action: { name: action },
    resource,
    context,
  });

  it("is understood where it names our identities and servers", async () => {
    await start();
    const decisionOf = async (body: object) => (await post("evaluation", body)).body.decision;
    expect(await decisionOf(coaz("tools/call", { type: "tool", id: "get_invoice" }))).toBe(true);
    expect(await decisionOf(coaz("tools/call", { type: "tool", id: "drop_table" }))).toBe(false);
    expect(await decisionOf(coaz("tools/call", { type: "tool", id: "refund" }, { args: { amount: 5 } }))).toBe(true);
    expect(await decisionOf(coaz("tools/call", { type: "tool", id: "refund" }, { args: { amount: 50 } }))).toBe(false);
    expect(await decisionOf(coaz("tools/list", { type: "mcp_server", id: server }))).toBe(true);
    expect(await decisionOf(coaz("tools/list", { type: "mcp_server", id: "https://elsewhere" }))).toBe(false);
    expect(await decisionOf(coaz("resources/read", { type: "resource", id: "file:///a" }))).toBe(true);
    expect(await decisionOf(coaz("resources/read", { type: "resource", id: "file:///b" }))).toBe(false);
    expect(await decisionOf(coaz("read", { type: "tool", id: "get_invoice" }))).toBe(false);
    // What the enforcement point says the resource is, its arguments cannot contradict.
    const lied = coaz("resources/read", { type: "resource", id: "file:///b" }, { args: { uri: "file:///a" } });
    expect(await decisionOf(lied)).toBe(false);
    const other = {
      ...coaz("tools/list", { type: "mcp_server", id: server }),
      subject: { type: "identity", id: "alice" },
    };
    expect(await decisionOf(other)).toBe(false);
  });

  it("about a method that MCP does not have is denied, however wide the rules, and so in our own words", async () => {
    await start({ rules: "rules: [{ name: all, allow: { from: '**', to: '**' } }]" });
    const decisionOf = async (body: object) => (await post("evaluation", body)).body.decision;
    const own = (action: string) => ({
      ...coaz(action, { type: "mcp", id: server }),
      subject: { type: "spiffe", id: billing },
    });
    for (const method of ["tools/list", "server/discover", "notifications/initialized"]) {
      expect([method, await decisionOf(coaz(method, { type: "mcp_server", id: server }))]).toEqual([method, true]);
      expect([method, await decisionOf(own(method))]).toEqual([method, true]);
    }
    for (const method of [
      "tools/drop",
      "Tools/list",
      "tools/list ",
      "notifications/",
      "notifications/a b",
      "http:GET",
    ]) {
      expect([method, await decisionOf(coaz(method, { type: "mcp_server", id: server }))]).toEqual([method, false]);
      expect([method, await decisionOf(own(method))]).toEqual([method, false]);
    }
  });

  it("says which of several servers a tool is at, or is denied", async () => {
    const second = { ...payments, name: "ledger", id: identity("mcp/ledger").id };
    await start({ services: [payments, second] });
    const call = coaz("tools/call", { type: "tool", id: "get_invoice" });
    expect((await post("evaluation", call)).body).toMatchObject({
      decision: false,
      context: { reason_admin: { en: expect.stringContaining("context.server") } },
    });
    expect((await post("evaluation", { ...call, context: { server } })).body.decision).toBe(true);
    expect((await post("evaluation", { ...call, context: { server: "ledger" } })).body.decision).toBe(false);
  });
});

describe("many evaluations", () => {
  it("about what has a very long name have answers and records that are no longer for it", async () => {
    await start();
    const long = "x".repeat(200_000);
    const question = { subject: { type: "user", id: "a" }, action: { name: "read" }, resource: { type: "t", id: "r" } };
    const longer: readonly object[] = [
      { subject: { type: "spiffe", id: long } },
      { subject: { type: long, id: "a" } },
      { action: { name: long } },
      { action: { name: long }, resource: { type: "mcp", id: server } },
      { resource: { type: "t", id: long } },
      {
        subject: { type: "identity", id: billing },
        action: { name: "tools/call" },
        resource: { type: "tool", id: "x" },
        context: { server: long },
      },
    ];
    for (const part of longer) {
      const { status, body } = await post("evaluations", { ...question, ...part, evaluations: [{}, {}, {}] });
      expect(status).toBe(200);
      expect(body.evaluations).toHaveLength(3);
      expect(JSON.stringify(body).length).toBeLessThan(10_000);
      expect(JSON.stringify(recorded().at(-1)).length).toBeLessThan(10_000);
    }
    expect(recorded()).toHaveLength(3 * longer.length);
  });

  it("are decided with members of their own, the defaults whole", async () => {
    const point = decidesBy(() => true);
    await start({ change: () => ({ decisionPoint: () => point }) });
    await post("evaluations", {
      subject: { type: "user", id: "alice", properties: { role: "admin" } },
      action: { name: "read", properties: { soft: true } },
      resource: { type: "record", id: "r1" },
      context: { a: 1 },
      evaluations: [{}, { subject: { type: "user", id: "bob" }, context: { b: 2 } }, { action: { name: "write" } }],
    });
    expect(point.asked.map(({ subject, action, context }) => ({ subject, action, context }))).toEqual([
      {
        subject: { type: "user", id: "alice", properties: { role: "admin" } },
        action: { name: "read", properties: { soft: true } },
        context: { a: 1 },
      },
      {
        subject: { type: "user", id: "bob" },
        action: { name: "read", properties: { soft: true } },
        context: { b: 2 },
      },
      {
        subject: { type: "user", id: "alice", properties: { role: "admin" } },
        action: { name: "write" },
        context: { a: 1 },
      },
    ]);
  });

  it("have each a record of its own, and those that are not asked any more none", async () => {
    await start();
    const batch = { ...toolCall("get_invoice"), evaluations: [{}, toolCall("drop_table"), {}] };
    expect((await post("evaluations", batch)).body.evaluations).toHaveLength(3);
    expect(recorded()).toHaveLength(3);
    const short = { ...batch, options: { evaluations_semantic: "deny_on_first_deny" } };
    expect((await post("evaluations", short)).body.evaluations).toHaveLength(2);
    expect(recorded()).toHaveLength(5);
  });

  it("fail one by one, and as a whole only where the whole is wrong", async () => {
    await start();
    const items = [{}, { subject: "alice" }, 7, { resource: { type: "record" } }];
    const { body } = await post("evaluations", { ...toolCall("get_invoice"), resource: undefined, evaluations: items });
    expect(body.evaluations.map(({ decision }: { decision: boolean }) => decision)).toEqual([
      false,
      false,
      false,
      false,
    ]);
    expect(body.evaluations[1].context.error).toEqual({ status: 400, message: "subject must be an object" });
    expect((await post("evaluations", { evaluations: {} })).status).toBe(400);
    expect((await post("evaluations", { evaluations: Array(1_001).fill({}) })).status).toBe(400);
    expect((await post("evaluations", { evaluations: [{}], options: { evaluations_semantic: "any" } })).status).toBe(
      400,
    );
    expect((await post("evaluations", { ...toolCall("get_invoice"), options: {}, evaluations: [{}] })).status).toBe(
      200,
    );
  });
});
