import { afterEach, describe, expect, test } from "vitest";
import { mayAdminister } from "../../src/attestation/administrator.js";
import { createAdopters } from "../../src/attestation/adopters.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../src/attestation/launches.js";
import { linux } from "../../src/platform/linux.js";
import { atEnd, cleanUp, PYTHON, start, type Told, until } from "../attestation/processes.js";

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
  adopters.learn(agent, found === "unknown" ? undefined : await numberAfter(older, "below adopter"));
  const may = (pid: number) =>
    mayAdminister(statusOf(pid), {
      ownerUid: process.getuid?.() ?? -1,
      isAgent: launches.isAgent,
      isAdopter: adopters.isAdopter,
      firstLaunchStartTime: launches.firstLaunchStartTime,
      platform: linux,
    });
  return { older, agent, may };
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

  test("where the launcher could not try it, everything above the agent counts as one", async () => {
    const { older, may } = await family("parent", "unknown");
    expect(may(await pidAfter(older, "sleeper"))).toMatchObject({ allowed: false });
    expect(may(older.pid)).toMatchObject({ allowed: true });
  });
});
