import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { agentid, ordinaryUser, type RunningDev, run, runtimeBase, startDev } from "./agentid.js";
import { makeShop } from "./shop.js";

const running: RunningDev[] = [];
const started = async (...args: Parameters<typeof startDev>): Promise<RunningDev> => {
  const dev = await startDev(...args);
  running.push(dev);
  return dev;
};

afterEach(async () => {
  for (const dev of running.splice(0))
    if (dev.child.exitCode === null && dev.child.signalCode === null) await dev.stop();
});

function socketsLeft(): string[] {
  return readdirSync(runtimeBase(), { recursive: true, encoding: "utf8" }).filter((name) =>
    statSync(join(runtimeBase(), name), { throwIfNoEntry: false })?.isSocket(),
  );
}

function descendantsOf(project: string): string {
  try {
    return execFileSync("pgrep", ["-f", `${project}/services`], { encoding: "utf8" });
  } catch {
    // pgrep's way to say none.
    return "";
  }
}

async function authorityOf(project: string): Promise<string> {
  const { stdout } = await agentid(["status", "--json"], { cwd: project });
  return (JSON.parse(stdout) as { authority: { notAfter: string } }).authority.notAfter;
}

describe("a trust domain's life", () => {
  it.each(["SIGINT", "SIGTERM"] as const)("%s leaves no socket, process or temporary file behind", async (signal) => {
    const dev = await started(makeShop());
    expect(dev.events[0]?.event).toBe("ready");
    expect(socketsLeft().length).toBeGreaterThanOrEqual(3);
    const { code, stderr } = await dev.stop(signal);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(socketsLeft()).toEqual([]);
    expect(readdirSync(runtimeBase()).filter((name) => name.startsWith("agentid-"))).toSatisfy((names: string[]) =>
      names.every((name) => readdirSync(join(runtimeBase(), name)).length === 0),
    );
  });

  it("restart keeps the trust domain; its files are the owner's alone", async () => {
    const project = makeShop();
    const first = await started(project);
    const authority = await authorityOf(project);
    await first.stop();
    const state = join(project, ".agentid");
    expect(readFileSync(join(state, ".gitignore"), "utf8")).toBe("*\n");
    for (const name of ["", ...readdirSync(state, { recursive: true, encoding: "utf8" })]) {
      expect(statSync(join(state, name)).mode & 0o077, name).toBe(0);
    }
    await started(project);
    expect(await authorityOf(project)).toBe(authority);
  });

  it("--ephemeral keeps nothing", async () => {
    const project = makeShop();
    const dev = await started(project, ["--ephemeral"]);
    const authority = await authorityOf(project);
    await dev.stop();
    expect(readdirSync(project)).not.toContain(".agentid");
    await started(project, ["--ephemeral"]);
    expect(await authorityOf(project)).not.toBe(authority);
  });

  it("a second one in the same project says that one is running, and where", async () => {
    const project = makeShop();
    const dev = await started(project);
    const second = await agentid(["dev", "--plain"], { cwd: project });
    expect(second.code).toBe(1);
    expect(second.stderr).toContain("already runs for this project");
    expect(second.stderr).toContain(String(dev.pid));
    expect(second.stderr).toContain(dev.ready.workloadApi);
  });

  it("after kill -9 the next start cleans up by itself and no service is left from before", async () => {
    const project = makeShop();
    const dev = await started(project);
    const before = descendantsOf(project);
    await dev.stop("SIGKILL");
    const next = await started(project);
    expect(next.ready.workloadApi).toBe(dev.ready.workloadApi);
    for (const pid of before.split("\n").filter(Boolean)) expect(descendantsOf(project).split("\n")).not.toContain(pid);
    const { code } = await next.stop();
    expect(code).toBe(0);
    expect(socketsLeft()).toEqual([]);
  });

  it.skipIf(ordinaryUser === undefined)(
    "its memory and environment are closed to other processes of the user",
    async () => {
      const project = makeShop();
      const dev = await started(project);
      const read = (pid: number | string) => run("sh", ["-c", `cat /proc/${pid}/environ >/dev/null`], { cwd: project });
      expect((await read("self")).code).toBe(0);
      expect(await read(dev.pid)).toMatchObject({ code: 1, stderr: expect.stringContaining("Permission denied") });
    },
  );

  it("without a daemon commands say so and exit 4; without a project 1", async () => {
    const project = makeShop();
    const status = await agentid(["status"], { cwd: project });
    expect(status.code).toBe(4);
    expect(status.stderr).toContain("agentid dev");
    const nowhere = await agentid(["dev", "--plain"], { cwd: "/" });
    expect(nowhere.code).toBe(1);
    expect(nowhere.stderr).toContain("agentid init");
  });

  it("dev answers the same whether it starts by itself or, for a spelling that it leaves to it, through the command framework", async () => {
    const empty = mkdtempSync(join(tmpdir(), "agentid-empty-"));
    const answers = async (...args: string[]) => {
      const { code, stdout, stderr } = await agentid(["dev", ...args], { cwd: "/" });
      return { code, stdout, stderr };
    };
    chmodSync(empty, 0o755);
    try {
      for (const flags of [["--json"], ["--plain", "--ephemeral"], []]) {
        const [itself, framework] = await Promise.all([
          answers(...flags, "--project", empty),
          answers(...flags, `--project=${empty}`),
        ]);
        expect(itself).toEqual(framework);
        expect([itself.code, itself.stdout + itself.stderr]).toEqual([1, expect.stringContaining("agentid.yaml")]);
      }
      for (const wrong of [["--nope"], ["--project"], ["--project", join(empty, "none")], ["extra"]]) {
        expect((await answers(...wrong)).code, wrong.join(" ")).not.toBe(0);
      }
      expect((await answers("--plain", "--help")).stdout).toContain("USAGE");
    } finally {
      rmSync(empty, { recursive: true });
    }
  });

  it("up starts it in the background, down stops it", async () => {
    const project = makeShop();
    const up = await agentid(["up"], { cwd: project });
    expect({ code: up.code, stderr: up.stderr }).toEqual({ code: 0, stderr: "" });
    expect((await agentid(["status"], { cwd: project })).code).toBe(0);
    expect((await agentid(["down"], { cwd: project })).code).toBe(0);
    expect((await agentid(["status"], { cwd: project })).code).toBe(4);
    expect(socketsLeft()).toEqual([]);
  });
});
