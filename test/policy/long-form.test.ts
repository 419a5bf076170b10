import { describe, expect, test } from "vitest";
import type { AccessRequest } from "../../src/policy/access-request.js";
import { mcpAccessRequest } from "../../src/policy/access-request-of.js";
import type { PolicyNames } from "../../src/policy/policy-names.js";
import { describeRule } from "../../src/policy/rule.js";
import { ruledRequest } from "../../src/policy/ruled-request.js";
import { problemLine } from "../../src/policy/yaml-file.js";
import { call, decisionsWith, http, id, loadWith, setWith, shop } from "./shop.js";

const names: PolicyNames = {
  ...shop,
  identities: [...shop.identities, "agents/lead"],
  withInstances: ["agents/planner"],
  labels: new Map([
    ["agents/billing", { team: "finance", tier: "one" }],
    ["agents/planner", { team: "planning" }],
  ]),
  services: [
    { name: "payments", identity: "mcp/payments", protocol: "mcp", labels: { data: "money" } },
    { name: "invoices", identity: "services/invoices", protocol: "http", labels: { data: "papers" } },
  ],
};
const ENTITIES = `entities:
  - { type: user, id: alice, properties: { department: finance, groups: [staff, approvers] } }
  - { type: user, id: bob, properties: { department: sales } }
  - { type: record, id: record-1, properties: { status: active } }
`;
const world = { names, entities: ENTITIES };
const one = (scope: string, more = "") => `rules: [{ name: a, allow: ${scope}${more} }]`;
const allowed = (rules: string, request: AccessRequest) => decisionsWith(world, rules).decide(request).allowed;
const from = (request: AccessRequest, caller: string): AccessRequest => ({
  ...request,
  subject: { ...request.subject, id: id(caller) },
});
const withContext = (request: AccessRequest, context: object): AccessRequest => ({
  ...request,
  context: { ...request.context, ...context },
});
const withEvidence = (request: AccessRequest, evidence: string): AccessRequest => ({
  ...request,
  subject: { ...request.subject, properties: { evidence } },
});
const read = (uri: unknown, method = "resources/read") =>
  mcpAccessRequest({ caller: id("agents/billing"), service: id("mcp/payments"), method, args: { uri } });
const prompt = (name: unknown) =>
  mcpAccessRequest({
    caller: id("agents/billing"),
    service: id("mcp/payments"),
    method: "prompts/get",
    args: { name },
  });

describe("the long form", () => {
  test.each([
    [
      "{ from: agents/billing, to: payments, tools: [get_*, x] }",
      "{ subject: { id: agents/billing }, resource: { server: payments, tool: [get_*, x] } }",
    ],
    [
      "{ from: agents/*, to: invoices, method: [GET, PUT], path: /v1/* }",
      "{ subject: { id: agents/* }, action: [GET, PUT], resource: { service: invoices, path: /v1/* } }",
    ],
    [
      "{ from: '**', to: mcp/payments, method: resources/read }",
      "{ subject: { type: spiffe, id: '**' }, action: { name: resources/read }, resource: { service: mcp/payments } }",
    ],
  ])("%s is short for %s", (short, long) => {
    const [one_, other] = [setWith(world, one(short)), setWith(world, one(long))];
    expect(other.rules.map(describeRule)).toEqual(one_.rules.map(describeRule));
    const plain = (rules: typeof other.rules) => rules.map(({ subjectType: _, ...rule }) => rule);
    expect(plain(other.rules)).toEqual(plain(one_.rules));
  });

  const payments = "resource: { server: payments }";
  const billing = "subject: { id: agents/billing }";
  test.each<[string, string, AccessRequest, AccessRequest]>([
    [
      "evidence",
      `{ subject: { id: '**', evidence: [launch, parent] }, ${payments} }`,
      withEvidence(call("x"), "launch"),
      withEvidence(call("x"), "weak"),
    ],
    [
      "evidence that nobody gave",
      `{ subject: { id: '**', evidence: launch }, ${payments} }`,
      withEvidence(call("x"), "launch"),
      call("x"),
    ],
    [
      "a user",
      `{ subject: { id: '**', user: ali* }, ${payments} }`,
      withContext(call("x"), { user: "alice" }),
      withContext(call("x"), { user: "bob" }),
    ],
    [
      "a user that nobody named",
      `{ subject: { id: '**', user: '*' }, ${payments} }`,
      withContext(call("x"), { user: { id: "alice" } }),
      call("x"),
    ],
    [
      "what entities.yaml knows of the user",
      `{ subject: { id: '**', user: { properties: { department: finance } } }, ${payments} }`,
      withContext(call("x"), { user: "alice" }),
      withContext(call("x"), { user: "bob" }),
    ],
    [
      "what the request knows of the user lies over it",
      `{ subject: { id: '**', user: { properties: { department: finance } } }, ${payments} }`,
      withContext(call("x"), { user: { id: "bob", properties: { department: "finance" } } }),
      withContext(call("x"), { user: { id: "alice", properties: { department: "sales" } } }),
    ],
    [
      "one element of a list",
      `{ subject: { id: '**', user: { properties: { groups: approvers } } }, ${payments} }`,
      withContext(call("x"), { user: "alice" }),
      withContext(call("x"), { user: "bob" }),
    ],
    [
      "all of the actors",
      `{ subject: { id: '**', actors: [agents/lead, agents/billing] }, ${payments} }`,
      withContext(call("x"), { actors: [id("agents/lead"), id("agents/billing")] }),
      withContext(call("x"), { actors: [id("agents/lead"), id("agents/planner")] }),
    ],
    [
      "actors that nobody named",
      `{ subject: { id: '**', actors: '**' }, ${payments} }`,
      withContext(call("x"), { actors: [id("agents/lead")] }),
      call("x"),
    ],
    [
      "an actor that is no identity",
      `{ subject: { id: '**', actors: '**' }, ${payments} }`,
      withContext(call("x"), { actors: [id("agents/lead")] }),
      withContext(call("x"), { actors: ["someone"] }),
    ],
    [
      "a label of the caller",
      `{ subject: { labels: { team: finance } }, ${payments} }`,
      call("x"),
      from(call("x"), "agents/planner"),
    ],
    [
      "labels of which all must be there",
      `{ subject: { labels: { team: [finance, planning], tier: one } }, ${payments} }`,
      call("x"),
      from(call("x"), "agents/planner"),
    ],
    [
      "an instance has its entry's labels",
      `{ subject: { labels: { team: planning } }, ${payments} }`,
      from(call("x"), "agents/planner/blue"),
      call("x"),
    ],
    [
      "instances by name",
      `{ subject: { id: agents/planner, instance: [blue, green-*] }, ${payments} }`,
      from(call("x"), "agents/planner/green-1"),
      from(call("x"), "agents/planner"),
    ],
    ["a label of the service", `{ ${billing}, resource: { labels: { data: money } } }`, call("x"), http("GET", "/a")],
    [
      "the type of a service",
      `{ ${billing}, resource: { type: mcp-tool, id: payments } }`,
      call("x"),
      read("file:///a"),
    ],
    [
      "an MCP resource",
      `{ ${billing}, resource: { server: payments, resource: "file:///docs/*" } }`,
      read("FILE:///docs/a"),
      read("file:///docs/a/b"),
    ],
    [
      "MCP resources below",
      `{ ${billing}, resource: { server: payments, resource: "file:///docs/**" } }`,
      read("file:///docs/a/b", "resources/subscribe"),
      read("file:///docs/../etc/passwd"),
    ],
    [
      "an MCP resource is no other method's",
      `{ ${billing}, resource: { server: payments, resource: "note:*" } }`,
      read("note:1"),
      read("note:1", "resources/list"),
    ],
    [
      "a URI that is text",
      `{ ${billing}, resource: { server: payments, resource: "note:*" } }`,
      read("note:1"),
      read(["note:1"]),
    ],
    [
      "an MCP prompt",
      `{ ${billing}, resource: { server: payments, prompt: [review, sum_*] } }`,
      prompt("sum_up"),
      prompt("other"),
    ],
    [
      "a pattern of actions",
      `{ ${billing}, action: resources/*, ${payments} }`,
      read("x:y", "resources/list"),
      call("x"),
    ],
    [
      "what the context says",
      `{ ${billing}, ${payments}, context: { channel: [cli, chat] } }`,
      withContext(call("x"), { channel: "chat" }),
      withContext(call("x"), { channel: "web" }),
    ],
    [
      "a context that says nothing",
      `{ ${billing}, ${payments}, context: { safe: true } }`,
      withContext(call("x"), { safe: true }),
      withContext(call("x"), { safe: "true" }),
    ],
  ])("asks for %s", (_what, scope, yes, no) => {
    expect(allowed(one(scope), yes)).toBe(true);
    expect(allowed(one(scope), no)).toBe(false);
  });

  test.each<[string, string, AccessRequest, AccessRequest]>([
    [
      "a deny about an actor is about any chain that has it",
      "{ subject: { actors: agents/lead } }",
      withContext(call("x"), { actors: [id("agents/planner"), id("agents/lead")] }),
      withContext(call("x"), { actors: [id("agents/planner")] }),
    ],
    [
      "a deny about resources is about what could be read as another one",
      '{ resource: { resource: "file:///secret/**" } }',
      read("file:///docs/%2e%2e/secret/a"),
      read("file:///docs/a"),
    ],
    ...[
      "file:///docs//secret/a",
      "file:////docs/secret/a",
      "file:/docs/secret/a",
      "file:docs/secret/a",
      "file://localhost/docs/secret/a",
      "file://elsewhere/docs/secret/a",
      "/docs/secret/a",
      "file:///docs/secret/a?x",
      "file:///docs/secret/a#/b",
      "file:///docs/secret/a/",
    ].map((uri): [string, string, AccessRequest, AccessRequest] => [
      `a deny about a resource is about it as ${uri}`,
      '{ resource: { resource: "file:///docs/secret/a" } }',
      read(uri),
      read("file:///docs/secret/b?x"),
    ]),
    ...[
      "https://u@db.local/a",
      "https://db.local:443/a",
      "https://db.local:/a",
      "https://db.local./a",
      "HTTPS://DB.local/a",
    ].map((uri): [string, string, AccessRequest, AccessRequest] => [
      `a deny about a host is about it as ${uri}`,
      '{ resource: { resource: "https://db.local/**" } }',
      read(uri),
      read("https://db.local:8443/a"),
    ]),
    ...[
      "file:///docs/s%C3%A4cret/a!(b)*",
      "file:///docs/s%c3%a4cret/a!(b)*",
      "file:///docs/säcret/a%21%28b%29%2A",
      "file:///docs/säcret/a%2521(b)*?x",
    ].map((uri): [string, string, AccessRequest, AccessRequest] => [
      `a deny about a resource is about it as ${uri}`,
      '{ resource: { resource: "file:///docs/säcret/a!(*)%2A" } }',
      read(uri),
      read("file:///docs/säcret/a!(b)x"),
    ]),
    [
      "a deny about what is encoded is about it as it is",
      '{ resource: { resource: "file:///docs/s%C3%A4cret/**" } }',
      read("file:///docs/säcret/a"),
      read("file:///docs/sacret/a"),
    ],
    ["a deny about an MCP server is about its tools", "{ resource: { type: mcp } }", call("x"), http("GET", "/v1")],
    [
      "a deny about instances by name and label",
      "{ subject: { id: agents/planner, instance: [blue, green-*], labels: { team: planning } } }",
      from(call("x"), "agents/planner/green-1"),
      from(call("x"), "agents/planner/red"),
    ],
    [
      "a deny about a pattern of instances and their label",
      "{ subject: { id: agents/*/blue, labels: { team: planning } } }",
      from(call("x"), "agents/planner/blue"),
      from(call("x"), "agents/planner/red"),
    ],
    [
      "a deny about one instance and its label",
      "{ subject: { id: agents/planner/blue, labels: { team: planning } } }",
      from(call("x"), "agents/planner/blue"),
      from(call("x"), "agents/planner"),
    ],
    [
      "a deny about tools by type cannot be called something else",
      "{ resource: { type: mcp-tool } }",
      { ...call("x"), resource: { ...call("x").resource, type: "mcp" } },
      read("file:///docs/a"),
    ],
  ])("%s", (_what, scope, denied, free) => {
    const rules = `rules: [{ name: all, allow: { from: '**', to: '**' } }, { name: no, deny: ${scope} }]`;
    expect(decisionsWith(world, rules).decide(denied)).toMatchObject({ allowed: false, rule: "no" });
    expect(decisionsWith(world, rules).decide(free)).toMatchObject({ allowed: true });
  });

  test("rules take a request for what its method is about, without the decision point's help", () => {
    const called = (request: AccessRequest, type: string) =>
      ruledRequest({ ...request, resource: { ...request.resource, type } }).resourceType;
    for (const type of ["mcp", "mcp-tool"]) {
      expect(called(call("x"), type)).toBe("mcp-tool");
      expect(called(read("file:///a"), type)).toBe("mcp");
    }
  });

  test("a read that names no one resource and a prompt without a name are denied, whatever rules allow", () => {
    const all = "rules: [{ name: all, allow: { from: '**', to: payments } }]";
    const decide = (request: AccessRequest) => decisionsWith(world, all).decide(request);
    for (const uri of [["file:///a"], { href: "file:///a" }, "", undefined]) {
      expect(decide(read(uri))).toMatchObject({ allowed: false, reason: "resources/read names no resource" });
    }
    for (const name of [["review"], "", undefined]) {
      expect(decide(prompt(name))).toMatchObject({ allowed: false, reason: "prompts/get names no prompt" });
    }
    expect(decide(read("file:///a"))).toMatchObject({ allowed: true });
    expect(decide(prompt("review"))).toMatchObject({ allowed: true });
  });

  test("a condition sees subject, user, actors, action, labels, properties and the rest of the context", () => {
    const when =
      "user.id == 'alice' && user.properties.department == 'finance' && actors.exists(a, a.endsWith('/lead')) && " +
      "caller.labels.team == 'finance' && resource.labels.data == 'money' && subject.type == 'spiffe' && " +
      "action.name == 'tools/call' && resource.type == 'mcp-tool' && context.channel == 'cli' && !has(context.args)";
    const rules = `rules: [{ name: a, allow: { from: '**', to: payments }, when: "${when}" }]`;
    const full = withContext(call("x"), { user: "alice", actors: [id("agents/lead")], channel: "cli" });
    expect(decisionsWith(world, rules).decide(full)).toMatchObject({ allowed: true });
    expect(decisionsWith(world, rules).decide(withContext(full, { channel: "web" }))).toMatchObject({
      allowed: false,
      reason: expect.stringContaining("context.channel == 'cli': \"web\" == 'cli' is false"),
    });
  });

  test("a condition about a user whom nobody named does not match, and explain says what is missing", () => {
    const rules = "rules: [{ name: a, allow: { from: '**', to: payments }, when: user.id == 'alice' }]";
    const { decision, considered } = decisionsWith(world, rules).explain(call("x"));
    expect(decision).toMatchObject({ allowed: false, rule: "a", conditional: true });
    expect(considered[0]).toMatchObject({ outcome: "fact-missing" });
    expect(considered[0]?.detail).toContain("nobody said for which user this is");
    expect(decisionsWith(world, rules).decide(withContext(call("x"), { user: "alice" })).allowed).toBe(true);
    const deny =
      "rules: [{ name: all, allow: { from: '**', to: payments } }, { name: no, deny: {}, when: user.id == 'bob' }]";
    expect(decisionsWith(world, deny).decide(call("x"))).toMatchObject({ allowed: false, rule: "no" });
    expect(decisionsWith(world, deny).decide(withContext(call("x"), { user: "alice" })).allowed).toBe(true);
  });

  test.each([
    ["a user without a name", { user: { id: "" } }, "names nobody"],
    ["a user that is a number", { user: 1 }, "names nobody"],
    ["actors that are no list", { actors: "x" }, "no list of names"],
    ["actors that are no names", { actors: [1] }, "no list of names"],
  ])("%s is a denial, whatever the rules", (_what, context, reason) => {
    const rules = one("{ from: '**', to: payments }");
    expect(allowed(rules, withContext(call("x"), {}))).toBe(true);
    expect(decisionsWith(world, rules).decide(withContext(call("x"), context))).toMatchObject({
      allowed: false,
      reason: expect.stringContaining(reason),
    });
  });
});

describe("names that cannot exist", () => {
  const problems = (rules: string) => loadWith(world, rules).problems.map(problemLine);
  const entity = "resource: { type: record }";
  test.each([
    [
      "a type",
      `{ subject: { type: usr }, ${entity} }`,
      "unknown type usr: no entity in entities.yaml has it (did you mean user?)",
    ],
    [
      "a resource's type",
      "{ from: '**', resource: { type: recrod } }",
      "unknown type recrod: no entity in entities.yaml has it (did you mean record?)",
    ],
    [
      "an identity",
      `{ subject: { id: agents/biling }, ${entity} }`,
      "unknown identity agents/biling (did you mean agents/billing?)",
    ],
    [
      "an actor",
      `{ subject: { id: '**', actors: agents/led }, ${entity} }`,
      "unknown identity agents/led (did you mean agents/lead?)",
    ],
    ["a service", "{ from: '**', resource: { service: paymets } }", "unknown service paymets (did you mean payments?)"],
    [
      "a label",
      `{ subject: { labels: { taem: finance } }, ${entity} }`,
      "nobody has the label taem (did you mean team?)",
    ],
    [
      "a label's value",
      `{ subject: { labels: { team: finanze } }, ${entity} }`,
      "nobody has the label team: finanze (did you mean finance?)",
    ],
    [
      "a service's label",
      "{ from: '**', resource: { labels: { team: finance } } }",
      "nobody has the label team (known: data)",
    ],
    ["a key", `{ subject: { typ: user }, ${entity} }`, "unknown key typ (did you mean type?)"],
    [
      "a key of the user",
      `{ subject: { id: '**', user: { propertes: {} } }, ${entity} }`,
      "unknown key propertes (did you mean properties?)",
    ],
    [
      "a key of the time",
      `{ from: '**', to: payments, time: { hour: 09:00-17:00 } }`,
      "unknown key hour (did you mean hours?)",
    ],
    [
      "an evidence",
      `{ subject: { id: '**', evidence: lunch }, ${entity} }`,
      "must be kernel or launch or parent or weak or certificate (did you mean launch?)",
    ],
    [
      "an action of a service",
      "{ from: '**', action: GTE, resource: { service: invoices } }",
      "unknown action GTE (did you mean GET?)",
    ],
    [
      "an instance of what has none",
      `{ subject: { id: agents/billing, instance: x }, ${entity} }`,
      "agents/billing has no instances",
    ],
    ["a zone", "{ from: '**', to: payments, time: { hours: 09:00-17:00, zone: Europe/Berln } }", "is no time zone"],
    ["a day", "{ from: '**', to: payments, time: { days: mon-fry } }", "is no day"],
    ["an hour", "{ from: '**', to: payments, time: { hours: 9-17 } }", "is no span of a day"],
    ["a date", "{ from: '**', to: payments, time: { after: 2026-02-30 } }", "is no time"],
    ["a URI", "{ from: '**', resource: { server: payments, resource: docs } }", "is no URI"],
    [
      "a URI with two readings",
      "{ from: '**', resource: { server: payments, resource: 'file:///a/../b' } }",
      "could be read as another URI",
    ],
    ["a MCP server that speaks HTTP", "{ from: '**', resource: { server: invoices } }", "this is no MCP server"],
    ["two ways at once", `{ from: '**', subject: { id: '**' }, ${entity} }`, "from and subject say the same"],
    ["a tool of a record", "{ from: '**', resource: { type: record, tool: x } }", "tool is of services"],
    [
      "labels of a user",
      `{ subject: { type: user, labels: { team: finance } }, ${entity} }`,
      "labels is of identities",
    ],
    ["an id without a type", "{ from: '**', resource: { id: record-1 } }", "id needs the type"],
    ["nobody in particular", `{ subject: {}, ${entity} }`, "does not say from whom"],
    ["a user alone", `{ subject: { user: alice }, ${entity} }`, "does not say from whom"],
    ["nothing in particular", "{ from: '**', resource: { tool: x } }", "does not say to which service"],
    ["arguments as context", "{ from: '**', to: payments, context: { args: x } }", "args is no context of its own"],
    ["labels that ask for nothing", `{ subject: { labels: {} }, ${entity} }`, "must not be empty"],
    ["a user that asks for nothing", `{ subject: { id: '**', user: {} }, ${entity} }`, "must not be empty"],
    ["properties that ask for nothing", `{ subject: { id: '**', properties: {} }, ${entity} }`, "must not be empty"],
    ["an action that asks for nothing", `{ from: '**', action: {}, ${entity} }`, "must not be empty"],
    ["a time that asks for nothing", "{ from: '**', to: payments, time: {} }", "must not be empty"],
    [
      "a caller without identity",
      `{ subject: { type: none }, ${entity} }`,
      "whoever has no identity is always refused",
    ],
  ])("%s", (_what, scope, expected) => {
    expect(problems(one(scope)).join("\n")).toContain(expected);
    expect(loadWith(world, one(scope)).set).toBeUndefined();
  });

  test("what may come with a request although entities.yaml lacks it is a warning", () => {
    const { set, problems } = loadWith(
      world,
      one(
        "{ subject: { type: user, id: alcie, properties: { deparment: x } }, action: read, resource: { type: record, id: draft-* } }",
      ),
    );
    expect(set?.rules).toHaveLength(1);
    expect(problems.map(({ severity }) => severity)).toEqual(["warning", "warning", "warning"]);
    expect(problems.map(problemLine).join("\n")).toContain("no user alcie in entities.yaml (did you mean alice?)");
    expect(problems.map(problemLine).join("\n")).toContain("has deparment (did you mean department?)");
  });

  test("a rule cannot be called default, and says one thing", () => {
    expect(problems("rules: [{ name: default, deny: {} }]").join()).toContain(
      "default is what decides where no rule does",
    );
    expect(problems("rules: [{ name: a, match: {} }]").join()).toContain(
      "neither a limit nor anything that it requires",
    );
    expect(problems("rules: [{ name: a, deny: {}, limit: 1 per day }]").join()).toContain("go with allow or match");
    expect(problems("rules: [{ name: a, match: {}, limit: often }]").join()).toContain("is no limit");
    expect(problems("rules: [{ name: a, match: {}, limit: 1 per fortnight }]").join()).toContain("is no time");
    expect(problems("rules: [{ name: a, match: {}, limit: { rate: 1, per: day, fro: tool } }]").join()).toContain(
      "unknown key fro (did you mean for?)",
    );
  });
});
