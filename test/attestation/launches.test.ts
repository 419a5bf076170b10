import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { type ExpectedProgram, LaunchedProcess, sameCommandLine } from "../../src/attestation/launched-process.js";
import { createLaunchRegistry, type LaunchEnded, type LaunchRegistry } from "../../src/attestation/launches.js";
import { linux } from "../../src/platform/linux.js";
import { atEnd, cleanUp, start, type Told, until } from "./processes.js";

afterEach(cleanUp);

const BASH = realpathSync("/bin/bash");
const BASH_DIGEST = digestOf(BASH);
const POSES = join(import.meta.dirname, "programs/poses.py");
const TOLD = join(import.meta.dirname, "programs/told.py");
const hasPython = spawnSync("python3", ["--version"]).status === 0;
/** The interpreter itself, not what finds it. */
const PYTHON = hasPython
  ? realpathSync(spawnSync("python3", ["-c", "import sys; print(sys.executable)"], { encoding: "utf8" }).stdout.trim())
  : "";
if (!hasPython) process.stderr.write("SKIPPED: a process that poses as another program: there is no python3\n");
/** Says that it runs, then obeys: `exec …` replaces it. */
const AGENT = 'echo up; read -r line; eval "$line"';

interface Following {
  readonly registry: LaunchRegistry;
  readonly started: string[];
  readonly ended: LaunchEnded[];
}

function registry(): Following {
  const launches = createLaunchRegistry({ platform: linux, digests: executableDigests() });
  atEnd(() => launches.close());
  const started: string[] = [];
  const ended: LaunchEnded[] = [];
  launches.onStarted(({ name }) => void started.push(name));
  launches.onEnded((event) => void ended.push(event));
  return { registry: launches, started, ended };
}

/** A stand-in for the launcher: a process that becomes `command` when told, as `agentid run` does after the daemon's answer. */
async function launcher(command: string): Promise<Told> {
  const told = start("bash", ["-c", `echo ready; read -r; ${command}`]);
  await told.line();
  return told;
}

function digestOf(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

function statusOf(pid: number) {
  const handle = linux.openProcess({ pid });
  try {
    return { pid, ...handle.status() };
  } finally {
    handle.close();
  }
}

const expected: ExpectedProgram = {
  ...{ exePath: BASH, exeSha256: BASH_DIGEST, argv: ["bash", "-c", AGENT] },
  ...{ workingDirectory: process.cwd(), files: [] },
};
const billing = { name: "agents/billing", instance: undefined, launchedBy: [], descendants: false };
const becomeAgent = `exec bash -c '${AGENT}'`;

function identityOf(launches: LaunchRegistry, pid: number): string | undefined {
  const { startTime, execGeneration } = statusOf(pid);
  return launches.launchOf(pid, startTime, execGeneration)?.name;
}

describe.runIf(process.platform === "linux")("a launch", () => {
  test("begins when the process has become the pinned program, and ends at its next exec, for ever", async () => {
    const { registry: launches, started, ended } = registry();
    const told = await launcher(becomeAgent);
    const { startTime } = statusOf(told.pid);
    launches.begin({ launcher: statusOf(told.pid), ...billing, expected });
    await launches.checkNow(told.pid);
    expect(identityOf(launches, told.pid)).toBeUndefined();
    expect(launches.isAgent(told.pid, startTime)).toBe(true);
    told.tell("");
    await told.line();
    await launches.checkNow(told.pid);
    expect(identityOf(launches, told.pid)).toBe("agents/billing");
    expect(launches.runningPids("agents/billing")).toEqual([told.pid]);
    expect(started).toEqual(["agents/billing"]);
    told.tell(becomeAgent);
    await told.line();
    expect(identityOf(launches, told.pid)).toBeUndefined();
    await until(() => ended.length === 1, "the end of the identity");
    expect(ended[0]).toMatchObject({ name: "agents/billing", pid: told.pid, why: "exec", started: true });
    expect(launches.runningPids("agents/billing")).toEqual([]);
    expect(launches.isAgent(told.pid, startTime)).toBe(true);
    told.process.kill("SIGKILL");
    await told.exited();
    expect(launches.isAgent(told.pid, startTime)).toBe(false);
    expect(ended).toHaveLength(1);
  });

  test("ends at exit", async () => {
    const { registry: launches, started, ended } = registry();
    const told = await launcher(becomeAgent);
    launches.begin({ launcher: statusOf(told.pid), ...billing, expected });
    told.tell("");
    await until(() => started.length === 1, "the start");
    told.tell("exit 0");
    await told.exited();
    await until(() => ended.length === 1, "the end");
    expect(ended[0]).toMatchObject({ why: "exit", started: true });
    expect(launches.pids()).toEqual([]);
  });

  test("passes through shims without giving them the identity", async () => {
    const { registry: launches, started } = registry();
    const told = await launcher(
      `exec env LC_ALL=C bash -c 'echo shim; read -r; ${becomeAgent.replaceAll("'", "'\\''")}'`,
    );
    launches.begin({ launcher: statusOf(told.pid), ...billing, expected });
    told.tell("");
    expect(await told.line()).toBe("shim");
    await launches.checkNow(told.pid);
    expect(identityOf(launches, told.pid)).toBeUndefined();
    told.tell("");
    expect(await told.line()).toBe("up");
    await launches.checkNow(told.pid);
    expect(identityOf(launches, told.pid)).toBe("agents/billing");
    expect(started).toHaveLength(1);
  });

  test.runIf(hasPython)(
    "is not begun by a process that only looks like the pinned program, without an exec",
    async () => {
      const { registry: launches, started } = registry();
      const told = start(PYTHON, [POSES, TOLD]);
      expect(await told.line()).toBe("up");
      const pinned = { exePath: PYTHON, exeSha256: digestOf(PYTHON), argv: ["python3", TOLD] };
      const launch = { ...billing, expected: { ...expected, ...pinned } };
      launches.begin({ launcher: statusOf(told.pid), ...launch });
      const poses = async () => {
        const before = statusOf(told.pid).execGeneration;
        told.tell("pose");
        expect(await told.line()).toBe(`python3 ${TOLD}`);
        expect(statusOf(told.pid).execGeneration).not.toBe(before);
        for (let looks = 0; looks < 3; looks++) await launches.checkNow(told.pid);
        expect(identityOf(launches, told.pid)).toBeUndefined();
      };
      await poses();
      // What it becomes on the way is judged once, by what it was when it was seen first.
      told.tell("again");
      expect(await told.line()).toBe("up");
      await launches.checkNow(told.pid);
      await poses();
      expect(started).toEqual([]);
      // A launcher that has looked otherwise since it was attested is not followed at all.
      const attested = statusOf(told.pid);
      told.tell("pose");
      await told.line();
      expect(() => launches.begin({ launcher: attested, ...launch })).toThrow(
        expect.objectContaining({ code: "launch-unverifiable" }),
      );
      launches.begin({ launcher: statusOf(told.pid), ...launch });
      told.tell("become");
      await until(() => started.length === 1, "the pinned program");
      expect(identityOf(launches, told.pid)).toBe("agents/billing");
    },
  );

  test.each([
    ["other arguments", { ...expected, argv: ["bash", "-c", "true"] }],
    ["another digest", { ...expected, exeSha256: "0".repeat(64) }],
  ])("never begins with %s", async (_what, wanted) => {
    const { registry: launches, started, ended } = registry();
    const told = await launcher(becomeAgent);
    launches.begin({ launcher: statusOf(told.pid), ...billing, expected: wanted });
    told.tell("");
    await told.line();
    await launches.checkNow(told.pid);
    expect(identityOf(launches, told.pid)).toBeUndefined();
    told.process.kill("SIGKILL");
    await told.exited();
    await until(() => ended.length === 1, "the end");
    expect([started, ended[0]?.started]).toEqual([[], false]);
  });

  test("tells two agents of one program apart, and a bystander from both", async () => {
    const { registry: launches } = registry();
    const [one, two, bystander] = await Promise.all([
      launcher(becomeAgent),
      launcher(becomeAgent),
      launcher(becomeAgent),
    ]);
    launches.begin({ launcher: statusOf(one.pid), ...billing, name: "agents/one", expected });
    launches.begin({ launcher: statusOf(two.pid), ...billing, name: "agents/two", expected });
    for (const told of [one, two, bystander]) {
      told.tell("");
      await told.line();
      await launches.checkNow(told.pid);
    }
    expect([one, two, bystander].map(({ pid }) => identityOf(launches, pid))).toEqual([
      "agents/one",
      "agents/two",
      undefined,
    ]);
  });

  test("is not granted to a number that means another process now", async () => {
    const { registry: launches } = registry();
    const told = await launcher(becomeAgent);
    const status = statusOf(told.pid);
    expect(() =>
      launches.begin({ launcher: { ...status, startTime: status.startTime - 1n }, ...billing, expected }),
    ).toThrow(expect.objectContaining({ code: "process-gone" }));
    expect(() => launches.begin({ launcher: { ...status, execGeneration: undefined }, ...billing, expected })).toThrow(
      expect.objectContaining({ code: "launch-unverifiable" }),
    );
    launches.begin({ launcher: status, ...billing, expected });
  });

  test("is remembered as an agent by the next daemon, without its identity", async () => {
    const told = await launcher(becomeAgent);
    const { pid, startTime } = statusOf(told.pid);
    const next = createLaunchRegistry({ platform: linux, digests: executableDigests(), known: [{ pid, startTime }] });
    atEnd(() => next.close());
    expect([next.isAgent(pid, startTime), next.isAgent(pid, startTime + 1n)]).toEqual([true, false]);
    expect([next.firstLaunchStartTime, next.agents(), identityOf(next, pid)]).toEqual([
      startTime,
      [{ pid, startTime }],
      undefined,
    ]);
    told.process.kill("SIGKILL");
    await told.exited();
    expect(next.isAgent(pid, startTime)).toBe(false);
  });
});

describe.runIf(process.platform === "linux")("a launch that is withdrawn", () => {
  test("gives no identity to what the process becomes, and leaves it an agent", async () => {
    const { registry: launches, started, ended } = registry();
    const gone: number[] = [];
    launches.onGone(({ pid }) => void gone.push(pid));
    const [told, kept] = await Promise.all([launcher(becomeAgent), launcher(becomeAgent)]);
    const { startTime } = statusOf(told.pid);
    const one = { ...billing, instance: "one" };
    launches.begin({ launcher: statusOf(told.pid), ...one, expected });
    launches.begin({ launcher: statusOf(kept.pid), ...billing, expected });
    launches.withdraw(told.pid, startTime - 1n);
    expect(launches.hasInstance("agents/billing", "one")).toBe(true);
    launches.withdraw(told.pid, startTime);
    launches.withdraw(told.pid, startTime);
    expect(launches.hasInstance("agents/billing", "one")).toBe(false);
    expect(ended).toMatchObject([{ pid: told.pid, why: "withdrawn", started: false }]);
    for (const { pid, tell, line } of [told, kept]) {
      tell("");
      await line();
      await launches.checkNow(pid);
    }
    expect([identityOf(launches, told.pid), identityOf(launches, kept.pid)]).toEqual([undefined, "agents/billing"]);
    expect([started, launches.isAgent(told.pid, startTime)]).toEqual([["agents/billing"], true]);
    told.tell("exit 0");
    await told.exited();
    await until(() => gone.length === 1, "the exit");
    expect([gone, ended.length]).toEqual([[told.pid], 1]);
  });

  test("loses the identity that it has", async () => {
    const { registry: launches, ended } = registry();
    const told = await launcher(becomeAgent);
    const { pid, startTime } = statusOf(told.pid);
    launches.begin({ launcher: statusOf(pid), ...billing, expected });
    told.tell("");
    await told.line();
    await launches.checkNow(pid);
    expect(identityOf(launches, pid)).toBe("agents/billing");
    launches.withdraw(pid, startTime);
    await launches.checkNow(pid);
    expect([identityOf(launches, pid), launches.isAgent(pid, startTime)]).toEqual([undefined, true]);
    expect(ended).toMatchObject([{ why: "withdrawn", started: true }]);
  });

  test("does not begin by a look that was under way", async () => {
    const digests = executableDigests();
    const looking = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    const launches = createLaunchRegistry({
      platform: linux,
      digests: {
        ...digests,
        async digestOf(executable) {
          const digest = await digests.digestOf(executable);
          looking.resolve();
          await released.promise;
          return digest;
        },
      },
    });
    atEnd(() => launches.close());
    const started: number[] = [];
    launches.onStarted(({ pid }) => void started.push(pid));
    const [told, kept] = await Promise.all([launcher(becomeAgent), launcher(becomeAgent)]);
    const { startTime } = statusOf(told.pid);
    launches.begin({ launcher: statusOf(kept.pid), ...billing, expected });
    launches.begin({ launcher: statusOf(told.pid), ...billing, expected });
    told.tell("");
    await looking.promise;
    launches.withdraw(told.pid, startTime);
    kept.tell("");
    await Promise.all([told.line(), kept.line()]);
    released.resolve();
    await Promise.all([launches.checkNow(told.pid), launches.checkNow(kept.pid)]);
    expect([identityOf(launches, told.pid), identityOf(launches, kept.pid)]).toEqual([undefined, "agents/billing"]);
    expect(started).toEqual([kept.pid]);
  });
});

describe.runIf(process.platform === "linux")("a listener that throws", () => {
  test("keeps nobody else from hearing, and is reported", async () => {
    const problems: unknown[] = [];
    const launches = createLaunchRegistry({
      platform: linux,
      digests: executableDigests(),
      onProblem: (thrown) => problems.push(thrown),
    });
    atEnd(() => launches.close());
    const heard: string[] = [];
    const fails = (what: string) => () => {
      throw new Error(what);
    };
    launches.onStarted(fails("started"));
    launches.onEnded(fails("ended"));
    launches.onGone(fails("gone"));
    launches.onStarted(() => void heard.push("started"));
    launches.onEnded(({ why }) => void heard.push(why));
    launches.onGone(() => void heard.push("gone"));
    const told = await launcher(becomeAgent);
    launches.begin({ launcher: statusOf(told.pid), ...billing, expected });
    told.tell("");
    await told.line();
    await until(() => identityOf(launches, told.pid) !== undefined, "the start");
    told.process.kill("SIGKILL");
    await told.exited();
    await until(() => heard.includes("gone"), "the exit");
    expect(heard).toEqual(["started", "exit", "gone"]);
    expect(problems).toEqual([new Error("started"), new Error("ended"), new Error("gone")]);
    expect(launches.agents()).toEqual([]);
  });

  test("does not keep a process that has exited", async () => {
    const told = await launcher(becomeAgent);
    const { pid, startTime, execGeneration } = statusOf(told.pid);
    const gone: number[] = [];
    const followed = LaunchedProcess.follow({
      ...{ platform: linux, digests: executableDigests(), granted: billing, descendants: false, expected },
      launcher: { pid, startTime, execGeneration: execGeneration ?? "" },
      started: () => {},
      ended: () => {
        throw new Error("not recorded");
      },
      gone: () => void gone.push(pid),
    });
    atEnd(() => followed.close());
    told.process.kill("SIGKILL");
    await told.exited();
    await until(() => gone.length > 0, "the exit");
    expect(gone).toEqual([pid]);
  });
});

test("only the name that a program is called by may differ in the command line", () => {
  const wanted = { ...expected, exePath: "/usr/bin/python3.12", argv: ["python", "agent.py"] };
  expect(sameCommandLine(["python", "agent.py"], wanted)).toBe(true);
  expect(sameCommandLine(["/usr/bin/python3.12", "agent.py"], wanted)).toBe(true);
  expect(sameCommandLine(["sh", "agent.py"], wanted)).toBe(false);
  expect(sameCommandLine(["python", "other.py"], wanted)).toBe(false);
  expect(sameCommandLine(["python", "agent.py", ""], wanted)).toBe(false);
  expect(sameCommandLine([], wanted)).toBe(false);
});
