import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import type { Config } from "../../src/config/config.js";
import { parseConfig } from "../../src/config/load.js";
import { planLaunch } from "../../src/daemon/sandbox-plan.js";
import { secret } from "../relay/outside.js";

const project = realpathSync(mkdtempSync(join(tmpdir(), "agentid-plan-")));
afterAll(() => rmSync(project, { recursive: true, force: true }));
mkdirSync(join(project, "keys"));
mkdirSync(join(project, "certs"));
for (const name of ["agent.py", "keys/openai", "certs/ca.pem", "agentid.yaml"]) writeFileSync(join(project, name), "");

const configOf = (sandbox: string): Config =>
  parseConfig(
    `trustDomain: shop.local
identities: { a: { launch: { command: [python3, agent.py], sandbox: ${sandbox} } } }
egress: { api: { url: https://api.test, header: { X-Key: "${secret("api")}" }, ca: certs/ca.pem } }
secrets: { api: { file: keys/openai, key: K } }
`,
    { projectDirectory: project, file: join(project, "agentid.yaml"), digest: "" },
  );

function plan(sandbox: string) {
  const config = configOf(sandbox);
  const launch = config.identities[0]?.launch;
  if (launch === undefined) throw new Error("no launch");
  return planLaunch(
    { name: "a", launch, executable: "/usr/bin/true", files: [], door: join(project, "d"), launchSocket: undefined },
    config,
    {
      runtimeDirectory: join(project, "run", "x"),
      stateDirectory: join(project, ".agentid"),
      workloadApi: join(project, "w"),
      environment: {},
    },
  );
}

it("a sandbox never shows the files of secrets, and changes none of a target's authorities", () => {
  const { hidden, readOnly, view } = plan("true");
  expect(hidden).toContain(join(project, "keys/openai"));
  expect(readOnly).toContain(join(project, "certs/ca.pem"));
  const shown = view.mounts.map(({ at }) => at);
  expect(shown).toContain(join(project, "certs"));
  expect(shown.filter((at) => at.startsWith(join(project, "keys/")))).toEqual([]);
  expect(() => plan("{ read: [keys/openai] }")).toThrow(/stays closed/);
  expect(() => plan("{ write: [certs] }")).toThrow(/holds .*ca\.pem/);
  expect(() => plan("{ read: [certs] }")).not.toThrow();
});
