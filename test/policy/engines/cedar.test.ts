import { expect, test } from "vitest";
import { systemClock } from "../../../src/platform/clock.js";
import type { AccessRequest } from "../../../src/policy/access-request.js";
import { tcpAccessRequest } from "../../../src/policy/access-request-of.js";
import type { Verdict } from "../../../src/policy/engine.js";
import { policySetSlots } from "../../../src/policy/engines/cedar-library.js";
import { call, decisionsOf, type EngineProject, http, id, loadProject, message, record } from "./engine-project.js";

const cedar = (policies: string, more: EngineProject & { engine?: object } = {}): EngineProject => ({
  ...more,
  files: { "policies/shop.cedar": policies, ...more.files },
  engines: [{ name: "corporate", cedar: "policies/shop.cedar", ...more.engine }],
});

const NOTHING_DECIDED: Verdict = {
  ...{ allowed: false, rule: "", at: undefined, reason: "", message: undefined },
  ...{ values: {}, conditional: false, obligations: [] },
};

const REFUNDS = `@id("small-refunds")
permit(principal == Agent::"spiffe://shop.local/agents/billing", action == Action::"tools/call", resource == Tool::"payments/issue_refund")
when { context.args.amount <= 1000 };

@id("not-frozen") @message("The account is frozen.")
forbid(principal, action, resource) when { context.args has frozen && context.args.frozen };
`;

test("a permit permits, a forbid wins, what no policy permits is denied, and each names its line", async () => {
  const decisions = await decisionsOf(cedar(REFUNDS));
  expect(await decisions.judge(call("issue_refund", { amount: 900 }))).toMatchObject({ allowed: true });
  const [small, large, frozen, other] = [
    await decisions.judge(call("issue_refund", { amount: 900 })),
    await decisions.judge(call("issue_refund", { amount: 4200 })),
    await decisions.judge(call("issue_refund", { amount: 900, frozen: true })),
    await decisions.judge(call("delete_all", { amount: 900 })),
  ];
  expect(small).toMatchObject({ allowed: true });
  expect(large).toMatchObject({ allowed: false, engine: "corporate", rule: "default", conditional: true });
  expect(frozen).toMatchObject({
    ...{ allowed: false, engine: "corporate", rule: "not-frozen", at: "policies/shop.cedar:5" },
    ...{ message: "The account is frozen.", reason: "forbidden by not-frozen" },
  });
  expect(other).toMatchObject({ allowed: false, rule: "default", conditional: false });
});

test("a forbid that fails, which Cedar skips, denies", async () => {
  const decisions = await decisionsOf(
    cedar(`@id("all") permit(principal, action, resource);
@id("broken") forbid(principal, action, resource) when { context.args.limit < 5 };
`),
  );
  expect(await decisions.judge(call("issue_refund", { limit: 9 }))).toMatchObject({ allowed: true });
  expect(await decisions.judge(call("issue_refund", {}))).toMatchObject({
    ...{ allowed: false, engine: "corporate", rule: "broken", at: "policies/shop.cedar:2" },
    reason: expect.stringContaining("broken failed"),
  });
});

test.each([
  ["a fraction", { amount: 12.5 }, "args.amount is 12.5"],
  ["a number that is not exact", { amount: 2 ** 53 }, "beyond 2^53"],
  ["null", { amount: null }, "null"],
  ["an entity inside an argument", { amount: 1, who: { __entity: { type: "Agent", id: "x" } } }, "__entity"],
  ["a function call inside an argument", { amount: 1, at: [{ __extn: { fn: "ip", arg: "::1" } }] }, "__extn"],
  ["an expression inside an argument", { amount: 1, at: { __expr: "1" } }, "__expr"],
  ["half a surrogate pair", { amount: 1, text: "\ud800" }, "well-formed"],
  ["a request that is too large to judge at once", { amount: 1, text: "x".repeat(70_000) }, "too large"],
  ["a request without end of nesting", { amount: 1, deep: JSON.parse(`${"[".repeat(50)}${"]".repeat(50)}`) }, "deep"],
])("%s is refused at the edge", async (_, args, reason) => {
  const decisions = await decisionsOf(cedar(REFUNDS));
  expect(await decisions.judge(call("issue_refund", { amount: 1, text: "x" }))).toMatchObject({ allowed: true });
  const decision = await decisions.judge(call("issue_refund", args));
  expect(decision.allowed).toBe(false);
  expect(decision.reason).toContain(reason);
});

test("a member called __proto__ is a member like any other", async () => {
  const decisions = await decisionsOf(
    cedar(`permit(principal, action, resource) when { context.args["__proto__"].admin };`),
  );
  const withMember = call("t", JSON.parse('{"__proto__":{"admin":true}}'));
  expect(await decisions.judge(withMember)).toMatchObject({ allowed: true });
  expect(await decisions.judge(call("t", {}))).toMatchObject({ allowed: false });
});

test("a connection is the action connect on a service", async () => {
  const service = id("services/orders");
  const policy = `permit(principal, action == Action::"connect", resource == Service::"${service}");`;
  const decisions = await decisionsOf(cedar(policy));
  const connect = tcpAccessRequest({ caller: id("agents/billing"), service });
  expect(await decisions.judge(connect)).toMatchObject({ allowed: true });
  expect(await decisions.judge({ ...connect, action: { name: "other" } })).toMatchObject({ allowed: false });
});

test("a path that two servers could read as two is refused, whatever like says", async () => {
  const decisions = await decisionsOf({
    rulesScope: ["payments"],
    ...cedar(
      `permit(principal, action == Action::"http:GET", resource == Service::"invoices") when { resource.path like "/v1/*" };`,
    ),
  });
  expect(await decisions.judge(http("GET", "/v1/invoices"))).toMatchObject({ allowed: true });
  expect(await decisions.judge(http("GET", "/v1/../secret"))).toMatchObject({ allowed: false });
  expect(await decisions.judge(http("GET", "/v2/invoices"))).toMatchObject({ allowed: false });
});

const ENTITIES = `entities:
  - { type: user, id: alice, properties: { department: finance, groups: [leads] } }
  - { type: user, id: bob, properties: { department: sales, groups: [] } }
  - { type: group, id: leads, properties: { groups: [staff] } }
  - { type: record, id: record-1, properties: { status: active, level: 3 } }
`;

test("entities.yaml: users, their groups at any height, and records; an enforcement point's word lies over it", async () => {
  const decisions = await decisionsOf({
    ...cedar(`permit(principal in Group::"staff", action == Action::"read", resource is Record) when { resource.status == "active" };
permit(principal is Agent, action == Action::"http:GET", resource) when { context.user in Group::"leads" && context.user.department == "finance" };`),
    entities: ENTITIES,
    rulesScope: ["invoices"],
  });
  const reads = (user: string, of = "record-1") => record("read", of, { type: "user", id: user });
  expect(await decisions.judge(reads("alice"))).toMatchObject({ allowed: true, engine: "corporate" });
  expect(await decisions.judge(reads("bob"))).toMatchObject({ allowed: false });
  expect(await decisions.judge(reads("alice", "record-2"))).toMatchObject({ allowed: false });
  const archived: AccessRequest = {
    ...reads("alice"),
    resource: { type: "record", id: "record-1", properties: { status: "archived" } },
  };
  expect(await decisions.judge(archived)).toMatchObject({ allowed: false });
  expect(await decisions.judge(http("GET", "/v1", { user: "alice" }))).toMatchObject({ allowed: true });
  expect(await decisions.judge(http("GET", "/v1", { user: { id: "bob" } }))).toMatchObject({ allowed: false });
  const moved = { user: { id: "bob", properties: { department: "finance", groups: ["leads"] } } };
  expect(await decisions.judge(http("GET", "/v1", moved))).toMatchObject({ allowed: true });
  for (const user of [7, [], { id: 7 }, { id: "alice", properties: 1 }, ""]) {
    expect(await decisions.judge(http("GET", "/v1", { user }))).toMatchObject({ allowed: false });
  }
});

test("nobody names an entity of another type: not an agent by the type agent, nor two types by one name", async () => {
  const decisions = await decisionsOf({
    ...cedar(`permit(principal == Agent::"spiffe://shop.local/agents/billing", action, resource);`),
    rulesScope: ["invoices"],
  });
  const as = (type: string) => record("read", "x", { type, id: id("agents/billing") });
  expect(await decisions.judge(as("spiffe"))).toMatchObject({ allowed: true });
  expect(await decisions.judge(as("agent"))).toMatchObject({
    allowed: false,
    reason: expect.stringContaining("type of its own"),
  });
  expect(await decisions.judge(as("Agent"))).toMatchObject({ allowed: false });
  const twice = await loadProject({
    ...cedar("permit(principal, action, resource);"),
    entities: "entities: [{ type: fin-rec, id: a }, { type: fin_rec, id: b }]",
  });
  expect(twice.loaded).toBeUndefined();
  expect(twice.problems.join()).toContain("would both be FinRec");
});

test("the time is the decision point's clock", async () => {
  const decisions = await decisionsOf(
    cedar(
      `permit(principal, action, resource) when { context.now.toTime() >= duration("9h") && context.now.toTime() < duration("17h") };`,
    ),
  );
  decisions.at("2025-01-15T08:59:59.999Z");
  expect(await decisions.judge(call("t"))).toMatchObject({ allowed: false });
  decisions.at("2025-01-15T09:00:00Z");
  expect(await decisions.judge(call("t"))).toMatchObject({ allowed: true });
  decisions.at("2025-01-15T17:00:00Z");
  expect(await decisions.judge(call("t"))).toMatchObject({ allowed: false });
});

const SCHEMA = `namespace Shop {
  entity Group;
  entity User in [Group] { department: String };
  entity Agent { name: String };
  entity Service;
  entity Tool in [Service] { tool: String };
  action session;
  action "initialize" in [session] appliesTo { principal: [Agent], resource: [Service] };
  action "tools/call" appliesTo { principal: [Agent], resource: [Tool], context: { args: { amount?: Long }, user?: User } };
}`;

const schemed = (policies: string, more: EngineProject = {}) =>
  cedar(policies, {
    ...more,
    files: { "policies/shop.cedarschema": SCHEMA },
    engine: { schema: "policies/shop.cedarschema", namespace: "Shop" },
  });

test("with a schema the request is validated: another argument, another type", async () => {
  const decisions = await decisionsOf(
    schemed(`permit(principal, action == Shop::Action::"tools/call", resource in Shop::Service::"payments")
when { context.args has amount && context.args.amount <= 1000 };`),
  );
  expect(await decisions.judge(call("t", { amount: 900 }))).toMatchObject({ allowed: true });
  expect(await decisions.judge(call("t", { amount: "900" }))).toMatchObject({ allowed: false });
  expect(await decisions.judge(call("t", { amount: 900, note: "x" }))).toMatchObject({
    allowed: false,
    reason: expect.stringContaining("note"),
  });
});

test("what the schema does not declare is not handed on: it can deny nothing, and permit nothing", async () => {
  const decisions = await decisionsOf({
    ...schemed(
      `permit(principal, action == Shop::Action::"tools/call", resource) when { context has user && context.user.department == "finance" };`,
    ),
    entities: ENTITIES,
  });
  const asked = call("t", {});
  const more = { now: 1.5, user: { id: "alice", properties: { height: 1.8 } }, other: null };
  const granted = { ...asked, context: { ...asked.context, ...more } };
  expect(await decisions.judge(granted)).toMatchObject({ allowed: true });
  expect(await decisions.judge({ ...granted, context: { ...granted.context, user: "bob" } })).toMatchObject({
    allowed: false,
  });
});

test.each([
  [
    "a policy that does not parse",
    "permit(principal, action, resource)\n  when { 1 = 2 };",
    "policies/shop.cedar:2:10: '=' is not",
  ],
  [
    "the second of two",
    "permit(principal, action, resource);\n\nforbid(principal action, resource);",
    "policies/shop.cedar:3:",
  ],
  ["a template", "permit(principal == ?principal, action, resource);", "policies/shop.cedar:1:21"],
  [
    "two policies of one name",
    '@id("a") permit(principal, action, resource);\n@id("a") forbid(principal, action, resource);',
    "policies/shop.cedar:2:1: policy a is already at policies/shop.cedar:1",
  ],
])("%s is refused with its place", async (_, policies, place) => {
  const { loaded, problems } = await loadProject(cedar(policies));
  expect(loaded).toBeUndefined();
  expect(problems.join("\n")).toContain(place);
});

test("a policy that the schema does not fit is refused with its place and the nearest name", async () => {
  const { loaded, problems } = await loadProject(
    schemed(`// é
permit(principal, action == Shop::Action::"tools/call", resource) when { context has usr };
permit(principal, action == Shop::Action::"tools/call", resource)
  when { context.usr.department == "finance" };`),
  );
  expect(loaded).toBeUndefined();
  const line = problems.find((problem) => problem.includes("not found"));
  expect(line).toContain("policies/shop.cedar:4:");
  expect(line).toContain("user");
});

test("a schema that does not parse is refused with its place", async () => {
  const { loaded, problems } = await loadProject({
    ...cedar("permit(principal, action, resource);", { engine: { schema: "s.cedarschema" } }),
    files: { "policies/shop.cedar": "permit(principal, action, resource);", "s.cedarschema": "entity A;\nentity {;" },
  });
  expect(loaded).toBeUndefined();
  expect(problems.join("\n")).toContain("s.cedarschema:2:8");
});

test("semicolons in strings and comments, and letters of many bytes, leave every policy its own line", async () => {
  const decisions = await decisionsOf(
    cedar(`// one; two
@id("first;") permit(principal, action, resource) when { context.args.x == "a;\\"é;" };
// é

@id("second") permit(principal, action, resource) when { context.args.x == "𝄞" };`),
  );
  expect(await decisions.judge(call("t", { x: 'a;"é;' }))).toMatchObject({ allowed: true });
  const { considered } = await decisions.explain(call("t", { x: "𝄞" }));
  expect(considered.filter(({ rule }) => rule.startsWith("corporate"))).toEqual([
    expect.objectContaining({ rule: "corporate: first;", at: "policies/shop.cedar:2", outcome: "condition-false" }),
    expect.objectContaining({ rule: "corporate: second", at: "policies/shop.cedar:5", outcome: "matched" }),
  ]);
});

test("policies without a name are called by file and line, also where two share a line or a file's name", async () => {
  const { loaded, problems } = await loadProject({
    files: {
      "p/x.cedar": "permit(principal, action, resource);forbid(principal, action, resource);",
      "p/q/x.cedar": "permit(principal, action, resource);",
    },
    engines: [{ name: "corporate", cedar: "p" }],
  });
  expect(problems).toEqual([]);
  const [engine] = loaded?.engines ?? [];
  const considered = await engine?.open({ clock: systemClock }).consider(call("t"), NOTHING_DECIDED);
  expect(considered?.map(({ rule }) => rule).sort()).toEqual([
    ...["corporate: p/x.cedar:1", "corporate: p/x.cedar:1 (2)", "corporate: x.cedar:1"],
  ]);
});

test("whoever may do anything at an MCP server may open the session; a forbid of everything shuts it", async () => {
  const decisions = await decisionsOf(
    cedar(`@id("reads") permit(principal == Agent::"spiffe://shop.local/agents/billing", action == Action::"tools/call", resource == Tool::"payments/get_invoice");
@id("shut") forbid(principal == Agent::"spiffe://shop.local/agents/planner", action, resource);
permit(principal == Agent::"spiffe://shop.local/agents/planner", action == Action::"tools/call", resource == Tool::"payments/get_invoice");`),
  );
  expect(await decisions.judge(message("initialize"))).toMatchObject({ allowed: true });
  expect(await decisions.judge(message("resources/read"))).toMatchObject({ allowed: false });
  expect(await decisions.judge(message("initialize", "agents/planner"))).toMatchObject({ allowed: false });
  expect(await decisions.judge(message("initialize", "agents/other"))).toMatchObject({ allowed: false });
  const could = (caller: string, tool: string) => decisions.couldAllowTool(id(caller), id("mcp/payments"), tool);
  expect(could("agents/billing", "get_invoice")).toBe(true);
  expect(could("agents/billing", "issue_refund")).toBe(false);
  expect(could("agents/planner", "get_invoice")).toBe(false);
  expect(decisions.couldReach(id("agents/billing"), id("mcp/payments"))).toBe(true);
  expect(decisions.couldReach(id("agents/planner"), id("mcp/payments"))).toBe(false);
});

test("an engine of an older project judges by its own policies after newer ones were loaded", async () => {
  const older = await decisionsOf(cedar(`permit(principal, action, resource) when { context.args.x == 1 };`));
  expect(await older.judge(call("t", { x: 1 }))).toMatchObject({ allowed: true });
  const newer = await decisionsOf(cedar(`permit(principal, action, resource) when { context.args.x == 2 };`));
  expect(await newer.judge(call("t", { x: 2 }))).toMatchObject({ allowed: true });
  expect(await older.judge(call("t", { x: 2 }))).toMatchObject({ allowed: false });
  expect(await older.judge(call("t", { x: 1 }))).toMatchObject({ allowed: true });
});

test("a large text is for few policies: however many could match, others do not wait", async () => {
  const looks = 'permit(principal, action, resource) when { context.args.text like "*a*b" };\n';
  const few = await decisionsOf(cedar(looks.repeat(4)));
  const many = await decisionsOf(cedar(looks.repeat(40)));
  const large = call("t", { text: `${"a".repeat(50_000)}b` });
  expect(await few.judge(large)).toMatchObject({ allowed: true });
  expect(await many.judge(call("t", { text: "aab" }))).toMatchObject({ allowed: true });
  expect(await many.judge(large)).toMatchObject({
    allowed: false,
    reason: "the request is too large for 40 policies to judge at once",
  });
});

test("a name that Cedar keeps is given to others only with its policies parsed anew", () => {
  const parsed: string[] = [];
  const ask = (owner: object) => policySetSlots.nameOf(owner, (name) => parsed.push(name));
  const first = {};
  const name = ask(first);
  expect(ask(first)).toBe(name);
  expect(parsed).toEqual([name]);
  const others = Array.from({ length: 2_000 }, () => ({}));
  expect(others.map(ask)).toContain(name);
  const before = parsed.length;
  ask(first);
  expect(parsed.length).toBe(before + 1);
});

test("where a parse fails its name is nobody's, and no other's policies are taken for it", () => {
  const heldBy = new Map<string, object>();
  const ask = (owner: object) => policySetSlots.nameOf(owner, (name) => heldBy.set(name, owner));
  const owners = Array.from({ length: 1_024 }, () => ({}));
  for (const owner of owners) ask(owner);
  const fails = () => {
    throw new Error("cannot be parsed");
  };
  for (let times = 0; times < 3; times += 1) expect(() => policySetSlots.nameOf({}, fails)).toThrow("cannot be parsed");
  const latest = [{}, {}, {}];
  for (const owner of latest) ask(owner);
  for (const owner of [...owners.slice(8), ...latest]) expect(heldBy.get(ask(owner))).toBe(owner);
});

test("nobody names an action as a thing, nor a service by another name than its own", async () => {
  const decisions = await decisionsOf({
    ...cedar(`permit(principal, action, resource) when { resource has name && resource.name == "payments/t" };
permit(principal is User, action, resource is Record);
permit(principal is User, action, resource == Service::"payments");
permit(principal is User, action, resource is Action);`),
    rulesScope: [{ type: "http" }],
  });
  const alice = { type: "user", id: "alice" };
  expect(await decisions.judge(record("read", "r", alice))).toMatchObject({ allowed: true });
  const action = { ...record("read", "r", alice), resource: { type: "action", id: "tools/call" } };
  expect(await decisions.judge(action)).toMatchObject({
    allowed: false,
    reason: expect.stringContaining("type of its own"),
  });
  expect(await decisions.judge(call("t"))).toMatchObject({ allowed: true });
  const renamed = call("u");
  const resource = { ...renamed.resource, properties: { ...renamed.resource.properties, name: "payments/t" } };
  expect(await decisions.judge({ ...renamed, resource })).toMatchObject({ allowed: false });
  const server = (of: string): AccessRequest => ({
    subject: alice,
    action: { name: "tools/list" },
    resource: { type: "mcp", id: of },
  });
  expect(await decisions.judge(server(id("mcp/payments")))).toMatchObject({ allowed: true });
  expect(await decisions.judge(server("payments"))).toMatchObject({ allowed: false });
  const actions = await loadProject({
    ...cedar("permit(principal, action, resource);"),
    entities: "entities: [{ type: action, id: a }]",
  });
  expect(actions.loaded).toBeUndefined();
});
