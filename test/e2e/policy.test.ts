import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentid, bin, python, type RunningDev, run, startDev, startProgram } from "./agentid.js";
import { billingCommand, makeShop } from "./shop.js";

describe.skipIf(python === undefined)("from a denial to the rule that allows it", () => {
  const project = makeShop();
  const policies = join(project, "policies");
  let dev: RunningDev;
  let billing: ReturnType<typeof startProgram>;
  beforeAll(async () => {
    for (const args of [
      ["init", "-q"],
      ["add", "policies"],
    ])
      await run("git", args, { cwd: project });
    const who = ["-c", "user.name=dev", "-c", "user.email=dev@shop.local"];
    expect(await run("git", [...who, "commit", "-qm", "policies"], { cwd: project })).toMatchObject({ code: 0 });
    dev = await startDev(project);
    billing = startProgram(process.execPath, [bin, "run", "billing", "--", ...billingCommand], { cwd: project });
    expect(await billing.line()).toMatch(/^up /);
  });
  afterAll(async () => {
    await billing?.end();
    await dev?.stop();
  });
  const asks = async (task: string): Promise<number> => {
    billing.write(`${task}\n`);
    return Number.parseInt(await billing.line(), 10);
  };
  const json = async (args: readonly string[]): Promise<Record<string, never>> => {
    const { code, stdout, stderr } = await agentid([...args, "--json"], { cwd: project });
    expect(code, stderr).toBe(0);
    return JSON.parse(stdout);
  };

  it("suggest names it, apply shows the change and asks, the next call goes through, diff replays the record", async () => {
    expect(await asks("PUT /v1/invoices/7")).toBe(403);
    expect(await asks("PUT /v1/invoices/7")).toBe(403);
    const suggested = await agentid(["policy", "suggest"], { cwd: project });
    expect(suggested.stdout).toContain("2 × DENY  agents/billing → invoices");
    const [, decision = ""] = /agentid policy apply (\w+) 1/.exec(suggested.stdout) ?? [];
    const before = readFileSync(join(policies, "shop.yaml"), "utf8");

    const nobody = await agentid(["policy", "apply", decision], { cwd: project });
    expect(nobody).toMatchObject({ code: 1, stderr: expect.stringContaining("nobody is here to confirm it") });
    const dry = await agentid(["policy", "apply", decision, "--dry-run"], { cwd: project });
    expect(dry.stdout).toContain("+   - name: billing-put");
    expect(dry.stdout).toContain("WIDENS");
    expect(readFileSync(join(policies, "shop.yaml"), "utf8")).toBe(before);
    expect(await agentid(["policy", "apply", decision, "7"], { cwd: project })).toMatchObject({ code: 2 });

    const seen = dev.events.length;
    expect(await json(["policy", "apply", decision, "--yes"])).toMatchObject({ widened: true, written: true });
    await dev.until((event) => event.event === "reload", seen);
    await expect.poll(() => asks("PUT /v1/invoices/7"), { timeout: 10_000 }).toBe(200);
    expect(await asks("PUT /v1/invoices/8")).toBe(403);

    const { replay, changes } = await json(["policy", "diff", "HEAD", "--replay"]);
    expect(changes).toEqual([expect.stringMatching(/^\+ allow billing-put/)]);
    const { changed } = replay as unknown as { changed: { call: string; before: object; after: object }[] };
    expect(changed.length).toBeGreaterThanOrEqual(2);
    for (const each of changed) {
      expect(each).toMatchObject({
        call: expect.stringContaining("PUT /v1/invoices/7"),
        before: { allowed: false },
        after: { allowed: true },
      });
    }
    const nothing = await json(["policy", "diff", "policies"]);
    expect(nothing).toEqual({ widened: false, changes: [] });
    const wrong = await agentid(["policy", "diff", "--output=evil"], { cwd: project });
    expect(wrong.code).toBe(2);
  });

  it("a change that would not load is not written", async () => {
    const file = join(policies, "broken.yaml");
    writeFileSync(file, "rules: [}\n");
    expect(await asks("PATCH /v1/invoices/7")).toBe(403);
    const suggested = await agentid(["policy", "suggest"], { cwd: project });
    const [, decision = ""] = /PATCH[\s\S]*?agentid policy apply (\w+) 1/.exec(suggested.stdout) ?? [];
    const refused = await agentid(["policy", "apply", decision, "--yes"], { cwd: project });
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining("broken.yaml:1") });
    writeFileSync(file, "rules: []\n");
  });

  it("explains a call that nobody has made", async () => {
    const told = await agentid(["policy", "explain", "PUT invoices /v1/invoices/9", "--as", "agents/billing"], {
      cwd: project,
    });
    expect(told.stdout).toContain("DENY  agents/billing PUT invoices /v1/invoices/9");
    expect(told.stdout).toContain("/v1/invoices/7 ≠ PUT /v1/invoices/9");
    const typo = await agentid(["policy", "explain", "PUT invoice /v1", "--as", "agents/billing"], { cwd: project });
    expect(typo).toMatchObject({ code: 2, stderr: expect.stringContaining("did you mean invoices?") });
    const odd = await agentid(["policy", "explain", "PUT invoices /v1", "--with", "[1]"], { cwd: project });
    expect(odd).toMatchObject({ code: 2, stderr: expect.stringContaining("KEY=VALUE") });
  });
});
