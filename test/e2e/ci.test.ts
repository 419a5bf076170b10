import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { agentid, makeProject, runtimeBase } from "./agentid.js";
import { makeShop } from "./shop.js";

const node = process.execPath;
const call = `fetch(process.env.AGENTID_URL_INVOICES + "/v1/x").then((r) => { if (r.status !== 403) process.exit(9) })`;

describe("agentid ci", () => {
  it("works without a configuration, gives the command a trust domain, and leaves nothing behind", async () => {
    const project = makeProject({});
    const script = `console.log(process.env.SPIFFE_ENDPOINT_SOCKET, require("node:fs").statSync(process.env.SPIFFE_ENDPOINT_SOCKET.slice(7)).isSocket())`;
    const done = await agentid(["ci", "--", node, "-e", script], { cwd: project });
    expect(done).toMatchObject({ code: 0, stderr: "" });
    expect(done.stdout).toMatch(/^unix:\/\/\/.* true\n$/);
    expect(existsSync(done.stdout.split(" ")[0]?.slice(7) ?? "")).toBe(false);
    expect(readdirSync(project)).toEqual([]);
    expect(readdirSync(runtimeBase()).filter((name) => name.startsWith("agentid-"))).toSatisfy((names: string[]) =>
      names.every((name) => readdirSync(join(runtimeBase(), name)).length === 0),
    );
  });

  it.each([
    ["0 when all is well", ["--", node, "-e", ""], 0],
    ["the command's own code", ["--", node, "-e", "process.exit(7)"], 7],
    ["128 and the signal's number when it was killed", ["--", node, "-e", "process.kill(process.pid, 'SIGTERM')"], 143],
    ["127 for a command that is not there", ["--", "no-such-command-here"], 127],
    ["2 without a command", [], 2],
  ] as const)("exit code: %s", async (_, args, code) => {
    expect((await agentid(["ci", ...args], { cwd: makeProject({}) })).code).toBe(code);
  });

  it("3 for a denial that nobody expected, and says which; 0 when it was expected; the command's own code wins", async () => {
    const project = makeShop();
    const unexpected = await agentid(["ci", "--report", "r.json", "--report", "r.xml", "--", node, "-e", call], {
      cwd: project,
    });
    expect(unexpected.code).toBe(3);
    expect(unexpected.stderr).toContain("denied, and not expected: (none) → invoices");
    const report = JSON.parse(readFileSync(join(project, "r.json"), "utf8")) as { denials: unknown[] };
    expect(report.denials).toMatchObject([{ service: "invoices", target: "/v1/x", expected: false }]);
    expect(readFileSync(join(project, "r.xml"), "utf8")).toContain('failures="1"');
    const expected = await agentid(["ci", "--expect-denied", "invoices/v1/*", "--", node, "-e", call], {
      cwd: project,
    });
    expect(expected).toMatchObject({ code: 0, stderr: "" });
    const own = await agentid(["ci", "--", node, "-e", `${call}.then(() => process.exit(5))`], { cwd: project });
    expect(own.code).toBe(5);
  });

  it("two at once in one project do not meet", async () => {
    const project = makeShop();
    const script = `setTimeout(() => console.log(process.env.AGENTID_URL_INVOICES), 300)`;
    const both = await Promise.all([1, 2].map(() => agentid(["ci", "--", node, "-e", script], { cwd: project })));
    expect(both.map(({ code }) => code)).toEqual([0, 0]);
    expect(both[0]?.stdout).not.toBe(both[1]?.stdout);
  });
});
