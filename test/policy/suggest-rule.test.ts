import { expect, test } from "vitest";
import type { AccessRequest } from "../../src/policy/access-request.js";
import { mcpAccessRequest } from "../../src/policy/access-request-of.js";
import { suggestRule } from "../../src/policy/suggest-rule.js";
import { call, decisionsOf, http, id, message, PAYMENTS_YAML } from "./shop.js";

function suggestion(request: AccessRequest, ...texts: string[]): string | undefined {
  const { decision, considered } = decisionsOf(...texts).explain(request);
  return suggestRule(request, decision, considered);
}

const indented = (yaml: string) => `rules:\n${yaml.replaceAll(/^/gm, "  ")}`;

test("the suggestion is the rule for this caller, this tool and these arguments", () => {
  expect(
    suggestion(call("issue_refund", { invoice: 1017, amount: 4200 }), PAYMENTS_YAML),
  ).toBe(`- name: billing-issue_refund
  allow:
    from: agents/billing
    to: mcp/payments
    tools:
      - issue_refund
  when: args.invoice == 1017 && args.amount == 4200
`);
});

test.each<[string, AccessRequest, AccessRequest]>([
  ["another amount", call("issue_refund", { amount: 4200 }), call("issue_refund", { amount: 4201 })],
  ["another tool", call("drop"), call("drop_all")],
  ["another path", http("GET", "/v1/x"), http("GET", "/v1/y")],
  ["another method", http("PUT", "/v1/x"), http("POST", "/v1/x")],
  ["another query", http("GET", "/v1/x", { "a b": 'q"\u202e\\' }), http("GET", "/v1/x", { "a b": "q" })],
  ["a star in a path that is no pattern", http("GET", "/v1/*"), http("GET", "/v1/x")],
  ["a star in a tool's name", call("get*all*"), call("get_all_")],
  ["a hostile text", call("mail", { to: "'; x\n- name: evil\u{e0041}😀" }), call("mail", { to: "x" })],
  ["another MCP method", message("resources/list"), message("prompts/list")],
])("pasted, it allows the call and not %s", (_what, request, other) => {
  expect(decisionsOf("").decide(request).allowed).toBe(false);
  const decisions = decisionsOf(indented(suggestion(request, PAYMENTS_YAML) ?? ""));
  expect(decisions.decide(request)).toMatchObject({ allowed: true });
  expect(decisions.decide(other).allowed).toBe(false);
});

test("arguments that a short condition cannot pin are named", () => {
  const text = suggestion(call("mail", { to: "ann", parts: [1, 2], long: "x".repeat(500) }));
  expect(text?.split("\n")[0]).toBe('# allows any value of: "parts", "long"');
  expect(text).toContain('when: args.to == "ann"');
});

test("there is none where no allow would help", () => {
  const deny = "rules: [{ name: shut, deny: { to: payments } }]";
  expect(suggestion(call("drop"), PAYMENTS_YAML)).toBeDefined();
  expect(suggestion(call("drop"), PAYMENTS_YAML, deny)).toBeUndefined();
  expect(suggestion(call("get_invoice"), PAYMENTS_YAML)).toBeUndefined();
  const nobody = mcpAccessRequest({ caller: undefined, service: id("mcp/payments"), method: "tools/call", tool: "x" });
  expect(suggestion(nobody, PAYMENTS_YAML)).toBeUndefined();
});
