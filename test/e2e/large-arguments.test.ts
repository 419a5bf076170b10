import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { agentid, makeProject } from "./agentid.js";

const template = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "templates", "mcp-server");

test("the installed program finds the thread in which conditions over large arguments are evaluated", async () => {
  const list = (last: number) => `[${"1, ".repeat(20_000)}${last}]`;
  const expectation = (last: number, allow: boolean) =>
    `      - { call: payments/get_invoice, with: { ids: ${list(last)} }, allow: ${allow} }\n`;
  const project = makeProject(
    {
      "policies/payments.yaml": `rules:
  - name: few
    allow: { from: agents/billing, to: mcp/payments, tools: [get_invoice] }
    when: args.ids.all(id, id < 2)
`,
      "policies/payments.test.yaml": `tests:
  - name: large
    as: agents/billing
    expect:
${expectation(1, true)}${expectation(5, false)}`,
    },
    template,
  );
  const done = await agentid(["policy", "test"], { cwd: project });
  expect(done.stdout).toContain("2 passed, 0 failed");
  expect(done.code).toBe(0);
});
