import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentid, bin, giveTo, ordinaryUser, python, type RunningDev, run, startDev, startProgram } from "./agentid.js";
import { billingCommand, makeShop, POLICY, plannerCommand, shopYaml } from "./shop.js";

describe.skipIf(python === undefined)("real agents of one user with one interpreter", () => {
  const project = makeShop();
  let dev: RunningDev;
  const agents: ReturnType<typeof startProgram>[] = [];

  beforeAll(async () => {
    dev = await startDev(project);
  });
  afterAll(async () => {
    for (const agent of agents) await agent.end();
    await dev.stop();
  });

  async function launch(name: string, command: readonly string[]): Promise<ReturnType<typeof startProgram>> {
    const agent = startProgram(process.execPath, [bin, "run", name, "--", ...command], { cwd: project });
    agents.push(agent);
    expect(await agent.line()).toBe(`up ${agent.pid}`);
    return agent;
  }
  async function ask(agent: ReturnType<typeof startProgram>, task: string): Promise<{ status: number; body: string }> {
    agent.write(`${task}\n`);
    const [status = "", ...rest] = (await agent.line()).split(" ");
    return { status: Number(status), body: rest.join(" ") };
  }

  it("two launches are two identities: one may, the other may not, and the service learns who called", async () => {
    const billing = await launch("billing", billingCommand);
    const planner = await launch("agents/planner", plannerCommand);
    const allowed = await ask(billing, "GET /v1/invoices");
    expect(allowed.status).toBe(200);
    expect(allowed.body).toContain("URI=spiffe://shop.local/agents/billing");
    const denied = await ask(planner, "GET /v1/invoices");
    expect(denied.status).toBe(403);
    const problem = JSON.parse(denied.body) as { decision: string; rule: string };
    expect(problem.rule).toBe("default");
    const explained = await agentid(["explain", problem.decision.slice(0, 6)], { cwd: project });
    expect(explained.code).toBe(0);
    expect(explained.stdout).toContain("DENY  agents/planner → invoices");
    expect(explained.stdout).toContain("billing-reads");
    const byMethod = await ask(billing, "DELETE /v1/invoices");
    expect(byMethod.status).toBe(403);
  });

  it("the identity ends at the next exec, for ever", async () => {
    const billing = await launch("billing", billingCommand);
    expect((await ask(billing, "GET /v1/a")).status).toBe(200);
    const attested = async () =>
      JSON.parse((await agentid(["attest", String(billing.pid), "--json"], { cwd: project })).stdout) as {
        identities: { name: string; evidence: string }[];
      };
    expect((await attested()).identities).toEqual([
      {
        name: "agents/billing",
        spiffeId: "spiffe://shop.local/agents/billing",
        evidence: "launch",
        restsOn: ["launch"],
      },
    ]);
    const seen = dev.events.length;
    billing.write("exec /bin/cat\n");
    await dev.until(
      (event) => event.event === "process" && event.change === "ended" && event.pid === billing.pid,
      seen,
    );
    expect((await attested()).identities).toEqual([]);
  });

  it("an agent and its descendants may not administer; the owner may", async () => {
    const billing = await launch("billing", billingCommand);
    const command = `${process.execPath} ${bin} status --project ${project}`;
    for (const way of [command, `sh -c '${command}'`, `setsid sh -c '${command}'`]) {
      const { status, body } = await ask(billing, `run ${way}`);
      expect(body).toContain("may not administer");
      expect(status).toBe(3);
    }
    expect((await agentid(["status"], { cwd: project })).code).toBe(0);
  });

  it("a process nobody launched has no identity, whatever it says of itself", async () => {
    const impostor = startProgram(python ?? "", ["agents/billing.py"], { cwd: project, env: dev.env });
    agents.push(impostor);
    await impostor.line();
    const { status, body } = await ask(impostor, "GET /v1/invoices");
    expect(status).toBe(403);
    expect(body).toContain("no identity");
    const attested = await agentid(["attest", String(impostor.pid)], { cwd: project });
    expect(attested.stdout).toContain("identities that follow: none");
    expect(attested.stdout).toMatch(/✗ agents\/billing +launch/);
  });

  it.skipIf(ordinaryUser === undefined)("another user's connection has no identity", async () => {
    const url = dev.ready.services.invoices?.url ?? "";
    const other = await run("curl", ["-s", "-o", "-", `${url}/v1/invoices`], {
      cwd: "/",
      user: { uid: 65_533, gid: 65_533 },
    });
    expect(other.stdout).toContain("no identity");
  });

  it("a changed script is refused with both digests, until it is pinned again", async () => {
    const file = join(project, "agents", "planner.py");
    const honest = readFileSync(file, "utf8");
    writeFileSync(file, `${honest}# changed\n`);
    const args = ["run", "planner", "--", ...plannerCommand];
    const refused = await agentid(args, { cwd: project });
    expect(refused.code).toBe(3);
    expect(refused.stderr).toMatch(/agents\/planner\.py: pinned [0-9a-f]{64}, is now [0-9a-f]{64}/);
    expect(refused.stderr).toContain("agentid entry pin agents/planner");
    expect((await agentid(["entry", "pin", "planner"], { cwd: project })).code).toBe(0);
    const granted = await agentid(args, { cwd: project });
    expect(granted).toMatchObject({ code: 0, stderr: "" });
    expect(granted.stdout).toMatch(/^up \d+\n$/);
  });

  it("another command, folder or name is refused with the difference", async () => {
    const other = await agentid(["run", "billing", "--", python ?? "", "-c", "print(1)"], { cwd: project });
    expect(other.code).toBe(3);
    expect(other.stderr).toContain("agents/billing.py");
    const elsewhere = await agentid(["run", "billing", "--", ...billingCommand], { cwd: "/", env: dev.env });
    expect(elsewhere.code).toBe(3);
    expect(elsewhere.stderr).toContain(project);
    const nobody = await agentid(["run", "nobody", "--", ...billingCommand], { cwd: project });
    expect(nobody.code).toBe(3);
    expect(nobody.stderr).toContain("agents/billing");
  });
});

describe.skipIf(python === undefined)("policy files while it runs", () => {
  it("a save that widens waits until it is accepted; a broken save keeps the last good state", async () => {
    const project = makeShop({ "agentid.yaml": shopYaml("confirm") });
    const dev = await startDev(project);
    const planner = startProgram(process.execPath, [bin, "run", "planner", "--", ...plannerCommand], { cwd: project });
    try {
      await planner.line();
      const status = async () => {
        planner.write("GET /v1/invoices\n");
        return (await planner.line()).slice(0, 3);
      };
      expect(await status()).toBe("403");
      const policy = join(project, "policies", "shop.yaml");
      const reload = async (text: string, outcome: string) => {
        const seen = dev.events.length;
        writeFileSync(policy, text);
        return await dev.until((event) => event.event === "reload" && event.outcome === outcome, seen);
      };
      const wider = POLICY.replace("from: agents/billing", 'from: "agents/*"');
      const waiting = await reload(wider, "waiting");
      expect(waiting).toMatchObject({ widened: true });
      expect(await status()).toBe("403");
      expect((await agentid(["status"], { cwd: project })).stdout).toContain("agentid reload accept");
      expect((await agentid(["reload", "accept"], { cwd: project })).code).toBe(0);
      expect(await status()).toBe("200");

      const broken = await reload("rules: [ { name: x, alow: {} } ]", "failed");
      expect(broken).toMatchObject({ error: expect.stringMatching(/shop\.yaml:1:\d+.*alow.*allow/) });
      expect(await status()).toBe("200");
      expect((await agentid(["status"], { cwd: project })).stdout).toContain("last good state");

      await reload(POLICY, "applied");
      expect(await status()).toBe("403");
    } finally {
      await planner.end();
      await dev.stop();
    }
  });
});

describe.skipIf(python === undefined)("policy files saved under load", () => {
  it("no call is dropped, and each is decided by a whole policy set", async () => {
    const project = makeShop();
    const dev = await startDev(project);
    const billing = startProgram(process.execPath, [bin, "run", "billing", "--", ...billingCommand], { cwd: project });
    try {
      await billing.line();
      const policy = join(project, "policies", "shop.yaml");
      let reloads = 0;
      const answers = new Set<string>();
      for (let call = 0; reloads < 6; call += 1) {
        if (call % 10 === 0) writeFileSync(policy, `${POLICY}# ${call}\n${call % 20 === 0 ? "" : OTHER_RULE}`);
        billing.write("GET /v1/invoices\n");
        answers.add((await billing.line()).slice(0, 3));
        reloads = dev.events.filter((event) => event.event === "reload" && event.outcome === "applied").length;
      }
      expect([...answers]).toEqual(["200"]);
    } finally {
      await billing.end();
      await dev.stop();
    }
  });
});

const OTHER_RULE = `  - name: planner-writes
    allow: { from: agents/planner, to: services/invoices, method: POST, path: /v1/** }
`;

describe("user and binary hash", () => {
  it("the pinned binary has the identity; a copy with one byte more, run with the same command line, has none", async () => {
    const node = process.execPath;
    const project = makeShop({
      "agentid.yaml": `trustDomain: shop.local
identities:
  agents/planner: { uid: ${ordinaryUser?.uid ?? process.getuid?.()}, exe: { path: ${JSON.stringify(node)}, sha256: pinned } }
  services/invoices: { service: invoices }
services:
  invoices: { http: { command: [${JSON.stringify(node)}, services/invoices.js] } }
`,
      "policies/shop.yaml": POLICY.replace("agents/billing", "agents/planner"),
      "ask.js": `fetch(process.env.AGENTID_URL_INVOICES + "/v1/x").then(async (r) => console.log(r.status, await r.text()))`,
    });
    const dev = await startDev(project);
    try {
      const honest = await run(node, ["ask.js"], { cwd: project, env: dev.env });
      expect(honest.stdout).toMatch(/^200 .*spiffe:\/\/shop.local\/agents\/planner/);
      const copy = join(project, "node");
      copyFileSync(node, copy);
      writeFileSync(copy, "\n", { flag: "a" });
      giveTo(copy);
      const impostor = await run(copy, ["ask.js"], { cwd: project, env: dev.env });
      expect(impostor.stdout).toMatch(/^403 .*no identity/);
    } finally {
      await dev.stop();
    }
  });
});
