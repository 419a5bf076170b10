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
  // Another target has what it asks for.
  expect(said("to: [github, openai], method: GET")).toBe("");
  expect(said("to: openai, method: GET", ", when: request.path == '/x'")).toBe("");
});
