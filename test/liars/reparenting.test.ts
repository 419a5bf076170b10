import { readFileSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { mayAdminister } from "../../src/attestation/administrator.js";
import { type Adopters, createAdopters } from "../../src/attestation/adopters.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../src/attestation/launches.js";
import { linux } from "../../src/platform/linux.js";
import { atEnd, cleanUp, isRoot, PYTHON, start, type Told, until } from "../attestation/processes.js";

/*
 * An orphan's parent is whoever adopted it, so its chain of parents says nothing of who started it. Each of these is a real process that loses its parent.
 */

afterEach(cleanUp);

/** Obeys `start`, which makes a child that obeys as well, on the same input and output; a line `PID word` is for process PID. Adopts orphans if told to. */
const FAMILY = `
import ctypes, os, sys
libc = ctypes.CDLL(None)
if sys.argv[1] == "reaper": libc.prctl(36, 1, 0, 0, 0)
def sleeper(*before):
    if (pid := os.fork()) == 0:
        for each in before: each()
        os.write(1, f"{os.getpid()}\\n".encode())
        os.execv("/bin/sleep", ["sleep", "60"])
    return pid
def sibling():
    clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    if libc.syscall(clone, 0x8000 | 17, 0, 0, 0, 0) == 0: # CLONE_PARENT | SIGCHLD
        os.write(1, f"{os.getpid()}\\n".encode())
        os.execv("/bin/sleep", ["sleep", "60"])
def orphan(*before):
    if (pid := os.fork()) == 0:
        for each in before: each()
        sleeper()
        os._exit(0)
    os.waitpid(pid, 0)
def child():
    told, tell = os.pipe()
    if os.fork() == 0:
        os.dup2(told, 0)
        os.close(tell)
        os.write(1, f"{os.getpid()}\\n".encode())
        obey()
    return tell
def obey():
    below = None
    for line in os.fdopen(0, closefd=False):
        word, *rest = line.split()
        if word == "child": below = child()
        elif word == "below": os.write(below, (" ".join(rest) + "\\n").encode())
        elif word == "sleeper": sleeper()
        elif word == "adopter":
            import subprocess
            subprocess.run(sys.argv[2:])
        elif word == "adopt":
            libc.prctl(36, 1, 0, 0, 0)
            os.write(1, f"{os.getpid()}\\n".encode())
        elif word == "sibling": sibling()
        elif word == "session": sleeper(os.setsid)
        elif word == "orphan": orphan()
        elif word == "orphan-of-its-own-session": orphan(os.setsid)
        elif word == "leading-orphan":
            if (pid := os.fork()) == 0:
                sleeper(os.setsid)
                os._exit(0)
            os.waitpid(pid, 0)
    os._exit(0)
obey()
`;

/** What `agentid run` does before it asks for a launch. */
const TRY = `await import(${JSON.stringify(new URL("../source-hooks.ts", import.meta.url).href)});
const { adopterOfOrphans } = await import(${JSON.stringify(new URL("../../src/platform/orphan-adopter.ts", import.meta.url).href)});
console.log(adopterOfOrphans());`;

const childrenOf = (pid: number): readonly number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").split(" ").filter(Boolean).map(Number);

function statusOf(pid: number) {
  const handle = linux.openProcess({ pid });
  try {
    return { pid, ...handle.status() };
  } finally {
    handle.close();
  }
}

async function tick(): Promise<void> {
  const now = statusOf(start("sleep", ["60"]).pid).startTime;
  await until(() => statusOf(start("sleep", ["60"]).pid).startTime > now, "the kernel's clock to tick");
}

async function numberAfter(told: Told, command: string): Promise<number> {
  told.tell(command);
  return Number(await told.line());
}

async function pidAfter(told: Told, command: string): Promise<number> {
  const pid = await numberAfter(told, command);
  atEnd(() => {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // it has exited already
    }
  });
  return pid;
}

/** An older process of the owner, and an agent below it. */
async function family(kind: "reaper" | "parent", found: "tried" | "unknown" = "tried") {
  const older = start(PYTHON, ["-c", FAMILY, kind, process.execPath, "-e", TRY]);
  await pidAfter(older, "sleeper");
  await tick();
  const agent = await pidAfter(older, "child");
  const below = (command: string) => numberAfter(older, `below ${command}`);
  return { older, agent, may: await launchedAs(agent, () => (found === "unknown" ? undefined : below("adopter"))) };
}

/** A subreaper below a subreaper, and an agent below that one. */
async function nestedFamily() {
  const older = start(PYTHON, ["-c", FAMILY, "reaper", process.execPath, "-e", TRY]);
  const nearer = await pidAfter(older, "child");
  expect(await numberAfter(older, "below adopt")).toBe(nearer);
  await tick();
  const agent = await pidAfter(older, "below child");
  return { older, nearer, may: await launchedAs(agent, () => numberAfter(older, "below below adopter")) };
}

/** Launches process `agent`, whose orphans `adopter` adopts first; the answer says of a process what it may. */
async function launchedAs(agent: number, adopter: () => Promise<number> | undefined) {
  const launches = createLaunchRegistry({ platform: linux, digests: executableDigests() });
  atEnd(() => launches.close());
  launches.begin({
    launcher: statusOf(agent),
    name: "agents/billing",
    instance: undefined,
    launchedBy: [],
    descendants: false,
    expected: { exePath: PYTHON, exeSha256: "", argv: [], workingDirectory: "/", files: [] },
  });
  const adopters = createAdopters(linux, []);
  adopters.learn(agent, await adopter());
  return (pid: number) =>
    mayAdminister(statusOf(pid), {
      ownerUid: process.getuid?.() ?? -1,
      isAgent: launches.isAgent,
      isAdopter: adopters.isAdopter,
      firstLaunchStartTime: launches.firstLaunchStartTime,
      platform: linux,
    });
}

describe.runIf(process.platform === "linux")("an orphan of an agent that a subreaper of any name adopts", () => {
  test.each(["orphan", "orphan-of-its-own-session", "leading-orphan"])("may not administer: %s", async (way) => {
    const { older, may } = await family("reaper");
    const orphan = await pidAfter(older, `below ${way}`);
    await until(() => linux.ancestors(orphan)[0]?.pid === older.pid, "adoption");
    expect(may(orphan)).toMatchObject({ allowed: false, reason: expect.stringContaining("use the dashboard") });
    // The control: who is older than any agent may, the subreaper itself among them.
    expect(may(older.pid)).toMatchObject({ allowed: true });
  });

  test("and a new child of an ordinary shell above the agent may, for it adopts nobody", async () => {
    const { older, agent, may } = await family("parent");
    expect(may(agent)).toMatchObject({ allowed: false });
    expect(may(await pidAfter(older, "sleeper"))).toMatchObject({ allowed: true });
    expect(may(await pidAfter(older, "session"))).toMatchObject({ allowed: true });
    const orphan = await pidAfter(older, "below leading-orphan");
    await until(() => !linux.ancestors(orphan).some(({ pid }) => pid === agent), "adoption");
    expect(may(orphan)).toMatchObject({ allowed: false, reason: expect.stringContaining("use the dashboard") });
  });

  test("may not administer when the agent has ended the nearer of two subreapers", async () => {
    const { older, nearer, may } = await nestedFamily();
    const orphan = await pidAfter(older, "below below leading-orphan");
    const adoptedBy = (pid: number) => until(() => linux.ancestors(orphan)[0]?.pid === pid, "adoption");
    await adoptedBy(nearer);
    expect(may(orphan)).toMatchObject({ allowed: false, reason: expect.stringContaining(`process ${nearer}`) });
    process.kill(nearer, "SIGKILL");
    await adoptedBy(older.pid);
    expect(may(orphan)).toMatchObject({ allowed: false, reason: expect.stringContaining("use the dashboard") });
    expect(may(older.pid)).toMatchObject({ allowed: true });
  });

  test("may administer as a sibling of the agent, for it cannot be told from what its parent starts", async () => {
    const { older, agent, may } = await family("parent");
    const sibling = await pidAfter(older, "below sibling");
    expect([linux.ancestors(agent)[0]?.pid, linux.ancestors(sibling)[0]?.pid]).toEqual([older.pid, older.pid]);
    expect([may(agent).allowed, may(sibling).allowed]).toEqual([false, true]);
  });

  test.runIf(isRoot)(
    "may not administer where the init of another PID namespace has adopted it",
    { timeout: 60_000 },
    async () => {
      const inside = "sleep 60 & sleep 0.05; (setsid sleep 61 &); wait";
      const unshare = start("unshare", ["--pid", "--fork", "--kill-child", "bash", "-c", inside]);
      const commandOf = (pid: number) => {
        try {
          return readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0").slice(0, 2).join(" ");
        } catch {
          return ""; // one of those in between has exited
        }
      };
      const childOf = (pid: number, command: string) => childrenOf(pid).find((child) => commandOf(child) === command);
      const found = async (pid: number, command: string): Promise<number> => {
        await until(() => childOf(pid, command) !== undefined, command, 25_000);
        return childOf(pid, command) ?? 0;
      };
      const init = await found(unshare.pid, "bash -c");
      const [agent, orphan] = [await found(init, "sleep 60"), await found(init, "sleep 61")];
      const isAgent = (pid: number) => pid === agent;
      const mayIf = (adopters: Adopters, pid: number) =>
        mayAdminister(statusOf(pid), {
          ...{ ownerUid: process.getuid?.() ?? -1, isAgent, isAdopter: adopters.isAdopter, platform: linux },
          firstLaunchStartTime: statusOf(agent).startTime,
        });
      const adopters = createAdopters(linux, []);
      // What the trial says inside: the init there is number 1.
      adopters.learn(agent, 1);
      expect(linux.ancestors(orphan)[0]?.pid).toBe(init);
      expect(mayIf(adopters, orphan)).toMatchObject({
        allowed: false,
        reason: expect.stringContaining(`process ${init}`),
      });
      // The control: where it is our own init that a launcher names, nobody above it is refused.
      const ours = createAdopters(linux, []);
      ours.learn(start("sleep", ["60"]).pid, 1);
      expect(mayIf(ours, start("sleep", ["60"]).pid)).toMatchObject({ allowed: true });
    },
  );

  test("where the launcher could not try it, everything above the agent counts as one", async () => {
    const { older, may } = await family("parent", "unknown");
    expect(may(await pidAfter(older, "sleeper"))).toMatchObject({ allowed: false });
    expect(may(older.pid)).toMatchObject({ allowed: true });
  });
});
