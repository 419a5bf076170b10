import { realpathSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AttestationReport } from "../../src/control-api/routes.js";
import { agentid, makeProject, ordinaryUser, python, type RunningDev, startDev, startProgram } from "./agentid.js";

const uid = ordinaryUser?.uid ?? process.getuid?.() ?? 0;
const shell = realpathSync("/bin/sh");
const node = realpathSync(process.execPath);

describe.skipIf(python === undefined)("agentid attest", () => {
  const pythonPath = realpathSync(python ?? "/");
  const project = makeProject({
    "agentid.yaml": `trustDomain: shop.local
identities:
  agents/python: { uid: ${uid}, exe: ${pythonPath}, parentExe: ${shell} }
  agents/service: { uid: ${uid}, exe: ${pythonPath}, systemdUnit: planner.service }
  agents/node: { uid: ${uid + 1}, exe: ${node} }
  mcp/none: { service: none }
services:
  none: { mcp: "http://127.0.0.1:9" }
`,
    "policies/all.yaml": "rules: []\n",
  });
  let dev: RunningDev;
  let agent: ReturnType<typeof startProgram>;
  let pid: number;

  beforeAll(async () => {
    dev = await startDev(project);
    // The shell stays, as the parent.
    const program = `"${python}" -c "import os; print(os.getpid(), flush=True); input()"; true`;
    agent = startProgram("/bin/sh", ["-c", program], { cwd: project });
    pid = Number(await agent.line());
  });
  afterAll(async () => {
    await agent.end();
    await dev.stop();
  });

  it("--explain names source, strength and forger of every fact, and the one thing that is missing", async () => {
    const { stdout, code } = await agentid(["attest", String(pid), "--explain"], { cwd: project });
    expect(code).toBe(0);
    expect(stdout).toMatch(/ {2}uid {2}\d+\n {6}source {4}SO_PEERCRED.*\n {6}strength {2}kernel\n {6}forged by root/);
    expect(stdout).toMatch(/ {2}path {2}.*python.*\n.*\n {6}strength {2}user\n {6}forged by .*LD_PRELOAD/);
    expect(stdout).toMatch(/ {2}command {2}.*\n.*\n {6}strength {2}none\n {6}forged by the process itself/);
    expect(stdout).toContain("✓ spiffe://shop.local/agents/python   evidence: parent");
    expect(stdout).toContain(`rests on  unix:uid:${uid}, unix:path:${pythonPath}, agentid:parent_path:${shell}`);
    const [, nearly = "", not = ""] = stdout.split(/identities that nearly follow.*\n|identities that do not follow\n/);
    expect(nearly).toContain("✗ agents/service");
    expect(nearly).toContain("missing   systemd:id:planner.service");
    expect(nearly).toContain(`holds     unix:uid:${uid}, unix:path:${pythonPath}`);
    expect(not).toMatch(/✗ agents\/node\n {6}missing {3}unix:uid/);
    expect(not).toContain(`missing   unix:path:${node}`);
    expect(not).toContain("✗ mcp/none");
  });

  it("--json says the same", async () => {
    const { stdout } = await agentid(["attest", String(pid), "--json"], { cwd: project });
    const report = JSON.parse(stdout) as AttestationReport;
    expect(report).toMatchObject({ pid, evidence: "kernel" });
    for (const fact of report.facts) for (const word of Object.values(fact)) expect(word).not.toBe("");
    expect(report.identities).toMatchObject([{ name: "agents/python", evidence: "parent" }]);
    expect(
      Object.fromEntries(report.missed.map(({ name, nearly, failures }) => [name, [nearly, failures.length]])),
    ).toEqual({
      "agents/service": [true, 1],
      "agents/node": [false, 2],
      "mcp/none": [false, 1],
    });
  });

  it("without --explain stays short", async () => {
    const { stdout } = await agentid(["attest", String(pid)], { cwd: project });
    expect(stdout).toContain("identities that follow\n  ✓ spiffe://shop.local/agents/python   (evidence: parent)");
    expect(stdout).not.toContain("forged by");
    expect(stdout).not.toContain("podUid");
  });
});
