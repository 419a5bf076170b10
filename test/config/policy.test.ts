import { expect, test } from "vitest";
import { messageOf } from "../../src/coded-error.js";
import { compareConfigs } from "../../src/config/compare.js";
import { parseConfig } from "../../src/config/load.js";

const config = (policy: string) =>
  parseConfig(
    `trustDomain: shop.local
services:
  invoices: { http: http://127.0.0.1:8080 }
policy:
${policy}`,
    { projectDirectory: "/shop", file: "/shop/agentid.yaml", digest: "" },
  );

const problemsOf = (policy: string): string => {
  try {
    config(policy);
    return "";
  } catch (thrown) {
    return messageOf(thrown);
  }
};

const CEDAR = "  engines: [{ name: one, cedar: p";

test.each([
  [
    "a service that there is not",
    `${CEDAR}, scope: [invoice] }]`,
    /agentid\.yaml:5:\d+ .*no service "invoice"; did you mean "invoices"/,
  ],
  [
    "a scope of the rules",
    "  rules: { scope: [services/invoces] }",
    /no service "services\/invoces"; did you mean "services\/invoices"/,
  ],
  ["a mistyped key", `${CEDAR}, shema: s }]`, /unknown key "shema"; did you mean "schema"/],
  ["no kind", "  engines: [{ name: one }]", /needs exactly one of cedar, rego, bundle, opa and authzen/],
  ["two kinds", `${CEDAR}, rego: r, entrypoint: a/b }]`, /needs exactly one of/],
  ["a key of another kind", `${CEDAR}, path: a/b }]`, /does not go with cedar/],
  ["Rego without an entrypoint", "  engines: [{ name: one, rego: p }]", /rego needs entrypoint/],
  ["OPA without a path", "  engines: [{ name: one, opa: 'http://127.0.0.1:8181' }]", /opa needs path/],
  ["a name twice", "  engines: [{ name: one, cedar: p }, { name: one, cedar: q }]", /there is another engine "one"/],
  ["the name of the rules", "  engines: [{ name: rules, cedar: p }]", /agentid's own rules/],
  [
    "plain http elsewhere",
    "  engines: [{ name: one, authzen: 'http://pdp.example' }]",
    /would leave this machine unprotected/,
  ],
  [
    "an address with a slash",
    "  engines: [{ name: one, authzen: 'https://pdp.example/' }]",
    /write it as https:\/\/pdp\.example/,
  ],
  ["a time without end", `${CEDAR}, timeout: 2h }]`, /must be from 10ms to 60s/],
])("%s is refused with its place and what to write", (_, policy, message) => {
  expect(problemsOf(`${CEDAR}, scope: [invoices, "services/*", { type: record }], timeout: 2s }]`)).toBe("");
  expect(problemsOf(policy)).toMatch(message);
});

test("engines and scopes that change: a further engine narrows while the rules judge everything; all else may widen", () => {
  const compared = (old: string, next: string) => compareConfigs(config(old), config(next));
  const rules = (more: string) => `  rules: { scope: [invoices] }\n${more}`;
  const none = "  engines: []";
  expect(compared(none, none)).toEqual({ widened: false, changes: [] });
  expect(compared(none, `${CEDAR} }]`)).toMatchObject({
    widened: false,
    changes: [expect.stringContaining("+ policy.engines.one: cedar")],
  });
  expect(compared(rules(none), rules(`${CEDAR} }]`)).widened).toBe(true);
  expect(compared(`${CEDAR} }]`, none).widened).toBe(true);
  expect(compared(`${CEDAR} }]`, `${CEDAR}, scope: [invoices] }]`).widened).toBe(true);
  expect(compared(`${CEDAR} }]`, "  engines: [{ name: one, cedar: q }]").widened).toBe(true);
  expect(compared(none, rules(none)).widened).toBe(true);
  expect(compared(rules(none), none).widened).toBe(true);
});
