import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentid, bin, python, type RunningDev, startDev, startProgram } from "./agentid.js";
import { billingCommand, makeShop, POLICY } from "./shop.js";

const RULES = `${POLICY}
  - name: nothing-closed
    deny: { to: invoices, path: /v1/closed }
`;

describe.skipIf(python === undefined)("shadow: what would change is seen before it does", () => {
  const project = makeShop({ "policies/shop.yaml": RULES });
  const rules = join(project, "policies", "shop.yaml");
  const config = join(project, "agentid.yaml");
  let dev: RunningDev;
  let billing: ReturnType<typeof startProgram>;
  beforeAll(async () => {
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
  const policy = async (...args: readonly string[]) => await agentid(["policy", ...args], { cwd: project });
  const json = async (...args: readonly string[]) => {
    const { code, stdout, stderr } = await policy(...args, "--json");
    expect(code, stderr).toBe(0);
    return JSON.parse(stdout);
  };
  const changed = async (...args: readonly string[]) => {
    const seen = dev.events.length;
    const done = await policy("shadow", ...args, "--yes");
    expect(done).toMatchObject({ code: 0, stderr: "" });
    await dev.until((event) => event.event === "reload" && event.outcome === "applied", seen);
    return done.stdout;
  };

  it("a deny in shadow WIDENS, lets through, is seen, and denies again without", async () => {
    expect(await asks("GET /v1/closed")).toBe(403);
    expect((await policy("shadow")).stdout).toBe("nothing is in shadow\n");
    const nobody = await policy("shadow", "nothing-closed");
    expect(nobody).toMatchObject({ code: 1, stderr: expect.stringContaining("nobody is here to confirm it") });
    const dry = await policy("shadow", "nothing-closed", "--dry-run");
    expect(dry.stdout).toContain("+     shadow: true");
    expect(dry.stdout).toContain("WIDENS");
    expect(readFileSync(rules, "utf8")).toBe(RULES);

    expect(await changed("nothing-closed")).toContain("WIDENS");
    expect(readFileSync(rules, "utf8")).toBe(`${RULES}    shadow: true\n`);
    expect((await policy("shadow", "nothing-closed", "--yes")).stdout).toBe("nothing-closed is already in shadow\n");
    expect(await asks("GET /v1/closed")).toBe(200);
    expect(await asks("GET /v1/closed")).toBe(200);
    expect(await asks("GET /v1/open")).toBe(200);

    const listed = (await policy("shadow")).stdout;
    expect(listed).toMatch(/^deny {2}nothing-closed {3}policies\/shop\.yaml:\d+\n/);
    expect(listed).toMatch(/2 × would be denied {2}agents\/billing → invoices\/+v1\/closed/);
    expect(listed).not.toContain("/v1/open");
    const [{ calls }] = await json("shadow");
    expect(calls).toMatchObject([{ count: 2, outcome: { rule: "nothing-closed", would: "deny", differs: true } }]);
    const suggested = (await policy("suggest")).stdout;
    expect(suggested).toContain("2 × would be denied when the shadow ends  agents/billing → invoices");
    // No allow helps against a deny.
    expect(suggested).not.toContain("policy apply");
    const { decision } = calls[0].latest;
    const explained = await agentid(["explain", decision], { cwd: project });
    expect(explained.stdout).toContain("  shadow   in shadow nothing-closed would deny: denied by nothing-closed");
    const shown = await agentid(["calls"], { cwd: project });
    expect(shown.stdout).toMatch(
      new RegExp(`ALLOW.*/v1/closed  in shadow nothing-closed would deny  \\(${decision}\\)`),
    );

    expect(await changed("nothing-closed", "--off")).not.toContain("WIDENS");
    expect(readFileSync(rules, "utf8")).toBe(RULES);
    expect(await asks("GET /v1/closed")).toBe(403);
    expect((await policy("shadow")).stdout).toBe("nothing is in shadow\n");
  });

  it("an identity in shadow does what no rule allows; what it did becomes rules, and the shadow ends", async () => {
    const before = readFileSync(config, "utf8");
    expect(await asks("PUT /v1/invoices/7")).toBe(403);
    expect(await changed("billing")).toContain("WIDENS");
    expect(readFileSync(config, "utf8")).toContain("    shadow: true\n");
    expect(await asks("PUT /v1/invoices/7")).toBe(200);
    expect(await asks("PUT /v1/invoices/7")).toBe(200);
    // A deny is a deny.
    expect(await asks("GET /v1/closed")).toBe(403);
    expect((await policy("shadow")).stdout).toMatch(
      /^identity {2}agents\/billing {3}agentid\.yaml\n +2 × would be denied {2}agents\/billing → invoices\/+v1\/invoices\/7/,
    );
    const { shadowed } = await json("suggest");
    const [{ latest }] = shadowed;
    expect(latest).toMatchObject({ verdict: "ALLOW", proposals: [{ widens: false, change: { kind: "add" } }] });
    const suggested = (await policy("suggest")).stdout;
    expect(suggested).toContain(`agentid policy apply ${latest.decision.slice(0, 8)} 1`);
    const explained = await agentid(["explain", latest.decision], { cwd: project });
    expect(explained.stdout).toContain("to allow it when the shadow ends, narrowest first");
    const offline = await policy("explain", "PUT invoices /v1/invoices/9", "--as", "agents/billing");
    expect(offline.stdout).toContain("ALLOW  agents/billing PUT invoices /v1/invoices/9");
    expect(offline.stdout).toContain(
      "shadow   let through: its identity is in shadow: no rule allows agents/billing PUT",
    );
    expect(offline.stdout).toContain("to allow it when the shadow ends, narrowest first");
    const shown = await agentid(["calls"], { cwd: project });
    expect(shown.stdout).toContain("let through: its identity is in shadow");

    const seen = dev.events.length;
    expect(await json("apply", latest.decision, "--yes")).toMatchObject({ written: true });
    await dev.until((event) => event.event === "reload", seen);
    expect(await changed("agents/billing", "--off")).not.toContain("WIDENS");
    expect(readFileSync(config, "utf8")).toBe(before);
    expect(await asks("PUT /v1/invoices/7")).toBe(200);
    expect(await asks("PUT /v1/invoices/8")).toBe(403);
  });

  it("a whole file, which ends with the file and not with one of its rules", async () => {
    const before = readFileSync(rules, "utf8");
    expect(await changed("policies/shop.yaml")).toContain("+ shadow: true");
    expect(await asks("GET /v1/open")).toBe(403);
    expect((await policy("shadow")).stdout).toMatch(
      /^allow {2}billing-put[\s\S]*1 × would be allowed[\s\S]*^deny {2}nothing/m,
    );
    const one = await policy("shadow", "billing-reads", "--off", "--yes");
    expect(one.stderr).toContain("billing-reads is in shadow with its whole file");
    expect(one.stderr).toContain("agentid policy shadow policies/shop.yaml --off");
    expect(one.code).toBe(1);
    expect(await changed("policies/shop.yaml", "--off")).toContain("WIDENS");
    expect(readFileSync(rules, "utf8")).toBe(before);
    expect(await asks("GET /v1/open")).toBe(200);
    const typo = await policy("shadow", "nothing-close");
    expect(typo).toMatchObject({ code: 2, stderr: expect.stringContaining("did you mean nothing-closed?") });
  });
});

it("without a running trust domain it says what is in shadow, and that no more is known", async () => {
  const project = makeShop({ "policies/shop.yaml": `shadow: true\n${POLICY}` });
  const { code, stdout } = await agentid(["policy", "shadow"], { cwd: project });
  expect(code).toBe(0);
  expect(stdout).toBe(
    "allow  billing-reads   policies/shop.yaml:3\nno trust domain is running: what would change is not known\n",
  );
});
