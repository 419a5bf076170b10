import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import type { AccessRequest } from "../../src/policy/access-request.js";
import { httpAccessRequest, mcpAccessRequest } from "../../src/policy/access-request-of.js";
import { decisionIds } from "../../src/policy/decision-id.js";
import { call, decisionsOf, http, id, message, PAYMENTS_YAML, setOf } from "./shop.js";

const allow = (name: string, scope: string, when = "") =>
  `rules: [{ name: ${name}, allow: { ${scope} }${when === "" ? "" : `, when: ${JSON.stringify(when)}`} }]`;
const deny = (name: string, scope: string, when = "") => allow(name, scope, when).replace("allow", "deny");

test("nothing is allowed that no rule allows", () => {
  const decisions = decisionsOf("");
  expect(decisions.decide(call("get_invoice"))).toMatchObject({
    allowed: false,
    rule: "default",
    at: undefined,
    reason: "no rule allows agents/billing get_invoice at mcp/payments",
    conditional: false,
    values: {},
  });
  expect(decisionsOf(PAYMENTS_YAML).decide(call("get_invoice"))).toMatchObject({
    allowed: true,
    rule: "billing-reads",
  });
});

test("a decision names the rule, its place, the reason with the values, and the rule's message", () => {
  const decisions = decisionsOf(PAYMENTS_YAML);
  expect(decisions.decide(call("issue_refund", { amount: 900, invoice: 1 }))).toMatchObject({
    allowed: true,
    rule: "small-refunds",
    at: "policies/0.yaml:5",
    reason: "allowed by small-refunds",
    message: undefined,
    values: { "args.amount": 900 },
    conditional: false,
  });
  expect(decisions.decide(call("issue_refund", { amount: 4200 }))).toMatchObject({
    allowed: false,
    rule: "small-refunds",
    at: "policies/0.yaml:5",
    reason: "small-refunds needs args.amount <= 1000: 4200 <= 1000 is false",
    message: "Refunds above 1000 need the finance lead. Ask for an approval.",
    values: { "args.amount": 4200 },
    conditional: true,
  });
  expect(decisions.decide(call("issue_refund", {}))).toMatchObject({ allowed: false, conditional: true });
});

test("who, where and what must all agree", () => {
  const decisions = decisionsOf(PAYMENTS_YAML);
  expect(decisions.decide(call("get_invoice")).allowed).toBe(true);
  expect(decisions.decide(call("get_invoice", {}, "agents/planner")).allowed).toBe(false);
  expect(decisions.decide(call("Get_invoice")).allowed).toBe(false);
  const foreign = { caller: "spiffe://evil.local/agents/billing", service: id("mcp/payments") };
  expect(decisions.decide(mcpAccessRequest({ ...foreign, method: "tools/call", tool: "get_invoice" })).allowed).toBe(
    false,
  );
  const elsewhere = { caller: id("agents/billing"), service: id("services/invoices") };
  expect(decisions.decide(mcpAccessRequest({ ...elsewhere, method: "tools/call", tool: "get_invoice" })).allowed).toBe(
    false,
  );
});

test("deny wins over any allow, whichever stands first", () => {
  const texts = [allow("a", "from: '**', to: invoices"), deny("z", "to: services/*, method: DELETE")];
  for (const decisions of [decisionsOf(...texts), decisionsOf(...texts.toReversed())]) {
    expect(decisions.decide(http("GET", "/x"))).toMatchObject({ allowed: true, rule: "a" });
    expect(decisions.decide(http("DELETE", "/x"))).toMatchObject({
      allowed: false,
      rule: "z",
      reason: "denied by z",
      conditional: false,
    });
  }
});

test("a deny whose condition fails with an error denies; an allow whose condition does so does not allow", () => {
  const open = allow("open", "from: agents/*, to: payments");
  const decisions = decisionsOf(open, deny("big", "to: payments, tools: pay", "args.amount > 10"));
  expect(decisions.decide(call("pay", { amount: 5 })).allowed).toBe(true);
  expect(decisions.decide(call("pay", { amount: 50 }))).toMatchObject({
    allowed: false,
    rule: "big",
    conditional: true,
  });
  expect(decisions.decide(call("pay", { amount: "5" }))).toMatchObject({
    allowed: false,
    rule: "big",
    conditional: true,
  });
  expect(decisions.decide(call("pay"))).toMatchObject({
    allowed: false,
    reason: "denied by big: args.amount > 10: args.amount is missing",
  });
  const careful = decisionsOf(allow("careful", "from: agents/*, to: payments", "args.amount < 10"));
  expect(careful.decide(call("pay", { amount: 5 })).allowed).toBe(true);
  expect(careful.decide(call("pay", { amount: {} })).allowed).toBe(false);
});

test("a path is matched by segment, a method by name", () => {
  const decisions = decisionsOf(allow("pay", "from: agents/billing, to: invoices, method: [GET, HEAD], path: /pay/*"));
  expect(decisions.decide(http("GET", "/pay/1")).allowed).toBe(true);
  expect(decisions.decide(http("HEAD", "/pay/1")).allowed).toBe(true);
  for (const path of ["/payroll/1", "/pay", "/pay/1/2", "/pay/../pay/1", "/pay/%2e%2e", "//pay/1", "pay/1", ""]) {
    expect(decisions.decide(http("GET", path)).allowed, path).toBe(false);
  }
  for (const method of ["POST", "get", "GET ", ""])
    expect(decisions.decide(http(method, "/pay/1")).allowed, method).toBe(false);
});

test("a condition reads the query of an HTTP request", () => {
  const decisions = decisionsOf(allow("open-only", "from: agents/billing, to: invoices", "request.query.open == '1'"));
  expect(decisions.decide(http("GET", "/v1", { open: "1" })).allowed).toBe(true);
  expect(decisions.decide(http("GET", "/v1", { open: "0" })).allowed).toBe(false);
});

test("whoever may call a tool may open the session it needs, and nobody else", () => {
  const decisions = decisionsOf(PAYMENTS_YAML);
  for (const method of ["initialize", "ping", "tools/list", "notifications/initialized"]) {
    expect(decisions.decide(message(method)).allowed, method).toBe(true);
    expect(decisions.decide(message(method, "agents/planner")).allowed, method).toBe(false);
  }
  for (const method of ["resources/read", "prompts/get", "sampling/createMessage", "Initialize", "initialize "]) {
    expect(decisions.decide(message(method)).allowed, method).toBe(false);
  }
  const shut = decisionsOf(PAYMENTS_YAML, deny("shut", "from: agents/billing, to: payments"));
  expect(shut.decide(message("initialize")).allowed).toBe(false);
  expect(shut.couldReach(id("agents/billing"), id("mcp/payments"))).toBe(false);
  expect(decisions.couldReach(id("agents/billing"), id("mcp/payments"))).toBe(true);
});

test("tools that no arguments could make callable are not shown", () => {
  const decisions = decisionsOf(
    PAYMENTS_YAML,
    deny("no-list", "to: payments, tools: list_invoices"),
    deny("sometimes", "to: payments, tools: issue_refund", "args.amount < 0"),
  );
  const shown = (tool: string, caller = "agents/billing") =>
    decisions.couldAllowTool(id(caller), id("mcp/payments"), tool);
  expect(["get_invoice", "issue_refund", "list_invoices", "other"].map((tool) => shown(tool))).toEqual([
    true,
    true,
    false,
    false,
  ]);
  expect(shown("get_invoice", "agents/planner")).toBe(false);
  expect(decisions.couldAllowTool("garbage", id("mcp/payments"), "get_invoice")).toBe(false);
});

test("rules about MCP methods other than tools", () => {
  const decisions = decisionsOf(
    allow("resources", "from: agents/billing, to: payments, method: [resources/list, tools/call]"),
  );
  expect(decisions.decide(message("resources/list")).allowed).toBe(true);
  expect(decisions.decide(message("resources/read")).allowed).toBe(false);
  expect(decisions.decide(call("anything")).allowed).toBe(true);
});

test("it never throws: what it cannot read is denied with the reason", () => {
  const decisions = decisionsOf(allow("all", "from: '**', to: [payments, invoices]"));
  const good = call("x");
  expect(decisions.decide(good).allowed).toBe(true);
  const bad: unknown[] = [
    null,
    {},
    { ...good, subject: { type: "none", id: "" } },
    { ...good, subject: { type: "none", id: id("agents/billing") } },
    { ...good, subject: { type: "spiffe", id: "agents/billing" } },
    { ...good, subject: { type: "spiffe", id: "spiffe://shop.local" } },
    { ...good, subject: { type: "spiffe", id: 1 } },
    { ...good, action: { name: 5 } },
    { ...good, action: { name: "" } },
    { ...good, action: { name: "http:GET" } },
    { ...good, resource: { ...good.resource, properties: {} } },
    { ...good, resource: { ...good.resource, properties: { tool: ["x"] } } },
    { ...good, resource: { ...good.resource, type: "database" } },
    { ...http("GET", "/x"), action: { name: "GET" } },
    { ...http("GET", "/x"), action: { name: "http:" } },
  ];
  for (const request of bad) {
    const decision = decisions.decide(request as AccessRequest);
    expect(decision.allowed, JSON.stringify(request)).toBe(false);
    expect(decision.reason).not.toBe("");
    expect(decisions.explain(request as AccessRequest).decision.allowed).toBe(false);
  }
  const nobody = httpAccessRequest({ caller: undefined, service: id("services/invoices"), method: "GET", path: "/x" });
  expect(decisions.decide(nobody).reason).toBe("the caller has no identity");
});

test("explain decides the same and lists every rule about the two, with what became of it", () => {
  const decisions = decisionsOf(PAYMENTS_YAML);
  const { decision, considered } = decisions.explain(call("issue_refund", { amount: 4200 }));
  expect(decision).toMatchObject({ id: "", allowed: false, rule: "small-refunds" });
  expect(considered).toEqual([
    {
      rule: "billing-reads",
      at: "policies/0.yaml:2",
      effect: "allow",
      outcome: "action-differs",
      detail: "agents/billing → mcp/payments tools get_invoice, list_invoices ≠ issue_refund",
    },
    {
      rule: "small-refunds",
      at: "policies/0.yaml:5",
      effect: "allow",
      outcome: "condition-false",
      detail: "args.amount <= 1000: 4200 <= 1000 is false",
    },
  ]);
  const planner = decisions.explain(call("get_invoice", {}, "agents/planner")).considered;
  expect(planner.map(({ rule, outcome }) => `${rule} ${outcome}`)).toEqual([
    "billing-reads subject-differs",
    "small-refunds subject-differs",
    "default matched",
  ]);
});

test("decision ids are 80 random bits in 16 characters, and no two are alike", () => {
  const next = decisionIds(randomBytes);
  const ids = Array.from({ length: 5_000 }, next);
  expect(new Set(ids).size).toBe(5_000);
  expect(ids.every((text) => /^[0-9a-hjkmnp-tv-z]{16}$/.test(text))).toBe(true);
  for (let place = 0; place < 16; place += 1) expect(new Set(ids.map((text) => text[place])).size).toBe(32);
  const ones = decisionIds((size) => new Uint8Array(size).fill(255));
  expect(ones()).toBe("z".repeat(16));
  const counted = decisionIds((size) => Uint8Array.from({ length: size }, (_, i) => i + 1));
  // 0x0102030405 and 0x060708090a in groups of five bits.
  expect(counted()).toBe("041061050r3gg28a");
});

test("the digest of the set is in every decision", () => {
  expect(decisionsOf(PAYMENTS_YAML).decide(call("x")).policyDigest).toBe(setOf(PAYMENTS_YAML).digest);
  expect(setOf(PAYMENTS_YAML).digest).not.toBe(setOf(`${PAYMENTS_YAML}#`).digest);
});
