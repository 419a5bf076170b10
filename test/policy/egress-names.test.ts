import { expect, it } from "vitest";
import { policyNamesOf } from "../../src/policy/policy-names.js";
import { policySetOf } from "../../src/policy/policy-set.js";
import { problemLine } from "../../src/policy/yaml-file.js";
import { parse } from "../config/project.js";

const names = policyNamesOf(
  parse(`trustDomain: shop.local
identities: { agents/writer: { uid: 1 } }
services: { invoices: { http: { unix: a } } }
egress: { openai: { url: https://api.openai.com }, anthropic: { url: https://api.anthropic.com } }
`),
);

const problemsOf = (to: string, more = ""): readonly string[] => {
  const rules = `rules:\n  - { name: a, allow: { from: agents/writer, to: ${to}${more} } }\n`;
  return policySetOf([{ file: "policies/a.yaml", bytes: Buffer.from(rules) }], names).problems.map(problemLine);
};

it("rules name a target as egress/NAME, by its name alone, or by a pattern", () => {
  for (const to of ["egress/openai", "openai", '"egress/*"', "[openai, egress/anthropic, invoices]"]) {
    expect(problemsOf(to), to).toEqual([]);
  }
  expect(problemsOf("egress/openai", ", method: POST, path: /v1/chat/completions")).toEqual([]);
});

it("a target that nobody declares is refused, with the nearest", () => {
  expect(problemsOf("egress/opena").join()).toMatch(/unknown service egress\/opena.*did you mean egress\/openai\?/);
  expect(problemsOf("opnai").join()).toMatch(/unknown service opnai.*did you mean openai\?/);
  expect(problemsOf("services/openai").join()).toMatch(/unknown service/);
});

it("a target has no tools", () => {
  expect(problemsOf("egress/openai", ", tools: [chat]").join()).toMatch(/openai is an http service and has no tools/);
});

it("a target that is reached by CONNECT is decided by its host, and a rule that asks for more says so", () => {
  const byHost = policyNamesOf(
    parse(`trustDomain: shop.local
identities: { agents/writer: { uid: 1 } }
egress: { github: { url: https://api.github.com, connect: true }, openai: { url: https://api.openai.com } }
`),
  );
  const said = (scope: string, more = ""): string => {
    const rules = `rules:\n  - { name: a, allow: { from: agents/writer, ${scope} }${more} }\n`;
    const { problems } = policySetOf([{ file: "policies/a.yaml", bytes: Buffer.from(rules) }], byHost);
    return problems.map(problemLine).join("\n");
  };
  for (const scope of ["to: github", "to: egress/github, action: connect", 'to: "egress/*"'])
    expect(said(scope)).toBe("");
  for (const more of ["method: GET", "path: /repos/**", "tools: [x]"]) {
    expect(said(`to: github, ${more}`), more).toMatch(/github is reached by CONNECT, which can only decide by host/);
  }
  expect(said("to: github", ", when: request.path == '/x'")).toMatch(/CONNECT can only decide by host.*request\.path/);
  expect(said("to: github", ", when: args.x == '/x'")).toMatch(/CONNECT can only decide by host.*args/);
  expect(said("to: github", ", when: caller.evidence == 'kernel'")).toBe("");
  expect(said("to: openai, method: GET", ", when: request.path == '/x'")).toBe("");
});

it("a rule about targets of both kinds that asks for more than a host says at load what that is where only the host is known", () => {
  const both = policyNamesOf(
    parse(`trustDomain: shop.local
identities: { agents/writer: { uid: 1 } }
services: { orders: { tcp: 127.0.0.1:5432 }, invoices: { http: { unix: a } } }
egress: { github: { url: https://api.github.com, connect: true }, openai: { url: https://api.openai.com } }
`),
  );
  const said = (rule: string): readonly string[] => {
    const { set, problems } = policySetOf(
      [{ file: "policies/a.yaml", bytes: Buffer.from(`rules: [${rule}]\n`) }],
      both,
    );
    // It is in force all the same: of the others it says what it does.
    expect(set, rule).toBeDefined();
    expect(problems.every(({ severity, code }) => severity === "warning" && code === "policy-by-host")).toBe(true);
    return problems.map(problemLine);
  };
  const nothing =
    /rule a says nothing about github, reached by CONNECT, which can only decide by host.*action: connect/;
  const allow = (scope: string, more = "") => said(`{ name: a, allow: { from: agents/writer, ${scope} }${more} }`);
  const deny = (scope: string, more = "") => said(`{ name: a, deny: { ${scope} }${more} }`);
  for (const scope of [
    "to: [github, openai], method: GET",
    'to: "egress/*", path: /v1/**',
    "to: [github, invoices], path: /v1",
  ]) {
    expect(allow(scope).join("\n"), scope).toMatch(nothing);
    expect(deny(scope).join("\n"), scope).toMatch(nothing);
  }
  // A deny that names no service seems to be about all of them.
  expect(deny("method: DELETE").join()).toMatch(nothing);
  expect(deny("resource: { type: http }").join()).toMatch(nothing);
  for (const said of [allow, deny]) {
    expect(said('to: "egress/*"', ", when: request.path == '/x'").join()).toMatch(
      /rule a asks for request\.path, and there is none of github, reached by CONNECT/,
    );
  }
  // What asks for no more, or is about no target that is reached by its host.
  for (const scope of [
    'to: "egress/*"',
    "to: [github, openai], action: [connect, GET]",
    "to: openai, method: GET",
    "to: services/*, path: /a",
  ]) {
    expect(allow(scope), scope).toEqual([]);
    expect(deny(scope), scope).toEqual([]);
  }
  expect(allow('to: "egress/*"', ", when: caller.evidence == 'kernel'")).toEqual([]);
  expect(deny("to: services/*, method: DELETE")).toEqual([]);
});
