import { createHash } from "node:crypto";
import { readFileSync, realpathSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { createCallerAttestor } from "../../src/attestation/attestor.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import type { ExpectedProgram } from "../../src/attestation/launched-process.js";
import { createLaunchRegistry, type LaunchEnded } from "../../src/attestation/launches.js";
import { markFiles } from "../../src/attestation/pinning.js";
import { linux } from "../../src/platform/linux.js";
import { atEnd, cleanUp, start, type Told, temporaryFolder, until } from "./processes.js";

afterEach(cleanUp);

const BASH = realpathSync("/bin/bash");
const BASH_DIGEST = createHash("sha256").update(readFileSync(BASH)).digest("hex");
const AGENT = 'echo up; while read -r line; do eval "$line"; done';
const becomeAgent = `exec bash -c '${AGENT}'`;
const expected: ExpectedProgram = {
  ...{ exePath: BASH, exeSha256: BASH_DIGEST, argv: ["bash", "-c", AGENT] },
  ...{ workingDirectory: process.cwd(), files: [] },
};
const granted = { name: "agents/builder", instance: undefined, launchedBy: [], descendants: true };

function following() {
  const digests = executableDigests();
  const launches = createLaunchRegistry({ platform: linux, digests });
  const ended: LaunchEnded[] = [];
  launches.onEnded((event) => void ended.push(event));
  atEnd(() => launches.close());
  const attestor = createCallerAttestor({ platform: linux, launches, digests });
  /** The caller at `pid`, held until the test is over. */
  const callerAt = async (pid: number) => {
    const caller = await attestor.ofPid(pid);
    atEnd(() => caller.close());
    return caller;
  };
  const launchAt = async (pid: number) => {
    const { launch } = await callerAt(pid);
    return launch && { name: launch.name, evidence: launch.evidence, pid: launch.pid };
  };
  return { launches, callerAt, launchAt, ended };
}

async function launcher(command: string, options: { cwd?: string } = {}): Promise<Told> {
  const told = start("bash", ["-c", `echo ready; read -r; ${command}`], options);
  await told.line();
  return told;
}

function statusOf(pid: number) {
  const handle = linux.openProcess({ pid });
  try {
    return { pid, ...handle.status() };
  } finally {
    handle.close();
  }
}

/** Launches `command` and waits until the agent in it says that it is up. */
async function launched(
  launches: ReturnType<typeof following>["launches"],
  { command = becomeAgent, wanted = expected, more = {}, cwd = process.cwd() } = {},
): Promise<Told> {
  const told = await launcher(command, { cwd });
  launches.begin({ launcher: statusOf(told.pid), ...granted, ...more, expected: wanted });
  told.tell("");
  while ((await told.line()) !== "up");
  await launches.checkNow(told.pid);
  return told;
}

async function pidFrom(told: Told, line: string): Promise<number> {
  told.tell(line);
  const pid = Number(await told.line());
  killAtEnd(pid);
  // The shell's fork becomes the program a moment later.
  const sleeps = /\bsleep 60 &/.test(line);
  await until(() => !sleeps || readFileSync(`/proc/${pid}/comm`, "latin1") === "sleep\n", "sleep");
  return pid;
}

function killAtEnd(pid: number): void {
  atEnd(() => {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It has ended already.
    }
  });
}

const fromAgent = (pid: number) => ({ name: "agents/builder", evidence: "parent", pid });

describe.runIf(process.platform === "linux")("descent from a launch", () => {
  test("is that of its children and theirs; nobody else has it, and nobody where nobody asked for it", async () => {
    const { launches, launchAt } = following();
    const agent = await launched(launches);
    const child = await pidFrom(agent, "sleep 60 & echo $!");
    const grandchild = await pidFrom(agent, 'bash -c "sleep 60 & echo \\$!; wait" &');
    expect(await launchAt(agent.pid)).toMatchObject({ evidence: "launch" });
    expect(await launchAt(child)).toEqual(fromAgent(agent.pid));
    expect(await launchAt(grandchild)).toEqual(fromAgent(agent.pid));
    expect(await launchAt(process.pid)).toBeUndefined();
    const other = following();
    const plain = await launched(other.launches, { more: { descendants: false } });
    expect(await other.launchAt(plain.pid)).toMatchObject({ evidence: "launch" });
    expect(await other.launchAt(await pidFrom(plain, "sleep 60 & echo $!"))).toBeUndefined();
  });

  test("is nobody's while a process lives that a shim has started before the program", async () => {
    const { launches, launchAt } = following();
    const agent = await launched(launches, { command: `sleep 60 & echo $!; ${becomeAgent}` });
    const child = await pidFrom(agent, "sleep 60 & echo $!");
    const [older] = readFileSync(`/proc/${agent.pid}/task/${agent.pid}/children`, "utf8").split(" ").map(Number);
    expect(await launchAt(agent.pid)).toMatchObject({ evidence: "launch" });
    expect(await launchAt(older ?? 0)).toBeUndefined();
    expect(await launchAt(child)).toBeUndefined();
    agent.tell(`kill -9 ${older} ${child}; wait; echo gone`);
    expect(await agent.line()).toBe("gone");
    await until(async () => {
      await new Promise((resolve) => setTimeout(resolve, 20)); // without any child
      const next = await pidFrom(agent, "sleep 60 & echo $!");
      if ((await launchAt(next)) !== undefined) return true;
      agent.tell(`kill -9 ${next}; wait; echo gone`);
      await agent.line();
      return false;
    }, "a child of the program alone");
  });

  test("ends when a process between them exits or executes something else", async () => {
    const { launches, callerAt } = following();
    const agent = await launched(launches);
    const MIDDLE = "sleep 60 & echo $!; read -r what <&9; ";
    const viaExit = await pidFrom(agent, `mkfifo /tmp/d$$; exec 9<>/tmp/d$$; rm /tmp/d$$; bash -c '${MIDDLE} exit' &`);
    const held = await callerAt(viaExit);
    expect(held.launch).toMatchObject({ evidence: "parent" });
    agent.tell("echo x >&9");
    await until(() => held.launch === undefined, "the end of the chain");
    const viaExec = await pidFrom(agent, `bash -c '${MIDDLE} exec sleep 61' &`);
    const other = await callerAt(viaExec);
    expect(other.launch).toMatchObject({ evidence: "parent" });
    const middle = statusOf(viaExec).parentPid;
    killAtEnd(middle);
    const before = statusOf(middle).execGeneration;
    agent.tell("echo x >&9");
    await until(() => statusOf(middle).execGeneration !== before, "the exec");
    // The chain that was held is broken. It still descends, by another chain, which is read anew.
    expect(other.launch).toMatchObject({ evidence: "parent", pid: agent.pid });
    expect((await callerAt(viaExec)).launch).toMatchObject({ evidence: "parent", pid: agent.pid });
  });

  test("ends when the launched process executes something else or exits", async () => {
    const { launches, callerAt } = following();
    for (const end of ["exec sleep 60", "exit"]) {
      const agent = await launched(launches);
      const child = await callerAt(await pidFrom(agent, "sleep 60 & echo $!"));
      expect(child.launch).toMatchObject({ evidence: "parent" });
      agent.tell(end);
      await until(() => child.launch === undefined, `the end by ${end}`);
      child.recheck();
    }
  });

  test("stops at the nearest agent: one on its way to its own identity, or past it, gives nothing of the agent above", async () => {
    const { launches, launchAt } = following();
    const agent = await launched(launches);
    const inner = `bash -c 'echo $$; read -r go; ${becomeAgent.replaceAll("'", "'\\''")}' <&9 &`;
    const waiting = await pidFrom(agent, `mkfifo /tmp/w$$; exec 9<>/tmp/w$$; rm /tmp/w$$; ${inner}`);
    expect(await launchAt(waiting)).toEqual(fromAgent(agent.pid));
    launches.begin({ launcher: statusOf(waiting), ...granted, name: "agents/inner", descendants: false, expected });
    expect(await launchAt(waiting)).toBeUndefined();
    agent.tell("echo x >&9");
    expect(await agent.line()).toBe("up");
    await until(async () => (await launchAt(waiting))?.name === "agents/inner", "the inner launch");
  });
});

describe.runIf(process.platform === "linux")("a launch begins", () => {
  test("only in its own folder", async () => {
    const { launches, launchAt } = following();
    const folder = realpathSync(temporaryFolder());
    const here = { ...expected, workingDirectory: folder };
    expect(await launchAt((await launched(launches, { wanted: here })).pid)).toBeUndefined();
    expect(await launchAt((await launched(launches, { wanted: here, cwd: folder })).pid)).toMatchObject({
      evidence: "launch",
    });
  });

  test("only where paths lead to the files that we see", async () => {
    const { launches, launchAt } = following();
    const command = `exec unshare -Um bash -c '${becomeAgent.replaceAll("'", "'\\''")}'`;
    expect(await launchAt((await launched(launches, { command })).pid)).toBeUndefined();
    expect(await launchAt((await launched(launches)).pid)).toMatchObject({ evidence: "launch" });
    // Nor where agentid makes the mounts, if the process was not in them when the launch was granted (test/e2e/sandbox.door.test.ts).
    const sandboxed = { ...expected, otherMounts: true };
    expect(await launchAt((await launched(launches, { command, wanted: sandboxed })).pid)).toBeUndefined();
  });

  test("with its files as they were pinned, and ends when one is touched", async () => {
    const { launches, launchAt, ended } = following();
    const folder = temporaryFolder();
    const script = join(folder, "a.sh");
    writeFileSync(script, "one");
    const sha256 = createHash("sha256").update("one").digest("hex");
    const withFiles = (digest: string): ExpectedProgram => ({
      ...expected,
      files: markFiles({ exe: { path: BASH, sha256: "" }, files: { "a.sh": digest } }, folder),
    });
    const honest = await launched(launches, { wanted: withFiles(sha256) });
    expect(await launchAt(honest.pid)).toMatchObject({ evidence: "launch" });
    expect(await launchAt((await launched(launches, { wanted: withFiles("0".repeat(64)) })).pid)).toBeUndefined();
    expect(ended).toMatchObject([{ why: "files", started: false, file: script }]);

    const marked = withFiles(sha256);
    // Swapped and restored between the digest and the start: the bytes are the pinned ones again, and the kernel still knows.
    writeFileSync(script, "two");
    writeFileSync(script, "one");
    expect(await launchAt((await launched(launches, { wanted: marked })).pid)).toBeUndefined();
    await until(() => ended.length === 3, "the ends");
    expect(ended.slice(1)).toMatchObject(
      expect.arrayContaining([
        expect.objectContaining({ why: "files", started: false }),
        expect.objectContaining({ why: "files", started: true, pid: honest.pid }),
      ]),
    );

    const again = await launched(launches, { wanted: withFiles(sha256) });
    expect(await launchAt(again.pid)).toMatchObject({ evidence: "launch" });
    utimesSync(script, 1, 1);
    await until(() => ended.length === 4, "the end");
    expect(await launchAt(again.pid)).toBeUndefined();
  });
});

describe.runIf(process.platform === "linux")("an instance", () => {
  test("lives once at a time, from its grant to the end of its identity", async () => {
    const { launches } = following();
    const one = { instance: "one" };
    const agent = await launched(launches, { more: one });
    expect(launches.instances).toMatchObject([{ name: "agents/builder", instance: "one" }]);
    expect(launches.runningPids("agents/builder/one")).toEqual([agent.pid]);
    await expect(launched(launches, { more: one })).rejects.toMatchObject({ code: "instance-taken" });
    await launched(launches, { more: { instance: "two" } });
    agent.tell("exec sleep 60");
    await until(() => !launches.hasInstance("agents/builder", "one"), "the end of the instance");
    await launched(launches, { more: one });
    expect(launches.instances.map(({ instance }) => instance)).toEqual(["two", "one"]);
  });

  test("has ended before the next one of its name begins, also where nobody has seen its exit yet", async () => {
    const { launches, ended } = following();
    const one = { instance: "one" };
    const [agent, next] = [await launched(launches, { more: one }), await launcher(becomeAgent)];
    const begin = () => launches.begin({ launcher: statusOf(next.pid), ...granted, ...one, expected });
    const first = launches.launchOfInstance("agents/builder", "one");
    expect(begin).toThrow(expect.objectContaining({ code: "instance-taken" }));
    // All in one turn of the event loop: no poll looks in between.
    process.kill(agent.pid, "SIGKILL");
    while (!/^State:\tZ/m.test(readFileSync(`/proc/${agent.pid}/status`, "latin1")));
    const seen: unknown[] = [];
    launches.onEnded(({ pid, why }) => seen.push({ pid, why, another: launches.hasInstance("agents/builder", "one") }));
    expect(ended).toEqual([]);
    begin();
    expect(seen).toEqual([{ pid: agent.pid, why: "exit", another: false }]);
    const second = launches.launchOfInstance("agents/builder", "one");
    expect([typeof first, typeof second, first === second]).toEqual(["string", "string", false]);
  });

  test("is given up by a launcher that asks for another launch", async () => {
    const { launches, ended } = following();
    const told = await launcher(becomeAgent);
    launches.begin({ launcher: statusOf(told.pid), ...granted, instance: "one", expected });
    launches.begin({ launcher: statusOf(told.pid), ...granted, instance: "two", expected });
    expect(ended).toMatchObject([{ name: "agents/builder/one", why: "replaced", started: false }]);
    expect(launches.instances.map(({ instance }) => instance)).toEqual(["two"]);
  });
});
