import { afterEach, describe, expect, test } from "vitest";
import { mayAdminister } from "../../src/attestation/administrator.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../src/attestation/launches.js";
import { linux } from "../../src/platform/linux.js";
import { atEnd, cleanUp, start, type Told, until } from "./processes.js";

afterEach(cleanUp);

const ownerUid = process.getuid?.() ?? -1;
/** A shell that starts others on demand and prints their PIDs. */
const shell = (): Told => start("bash", ["-c", 'while read -r line; do eval "$line"; done']);

function statusOf(pid: number) {
  const handle = linux.openProcess({ pid });
  try {
    return { pid, ...handle.status() };
  } finally {
    handle.close();
  }
}

/** Kernel start times are hundredths of a second: waits until a process started now is younger than all before. */
async function nextTick(): Promise<void> {
  const now = statusOf(start("sleep", ["60"]).pid).startTime;
  await until(() => statusOf(start("sleep", ["60"]).pid).startTime > now, "the kernel's clock to tick");
}

async function pidPrintedBy(told: Told, command: string): Promise<number> {
  told.tell(command);
  const pid = Number(await told.line());
  atEnd(() => {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // it has exited already
    }
  });
  return pid;
}

async function withAgent() {
  const older = shell();
  await nextTick();
  const agent = shell();
  const launches = createLaunchRegistry({ platform: linux, digests: executableDigests() });
  atEnd(() => launches.close());
  const may = (pid: number) =>
    mayAdminister(statusOf(pid), {
      ownerUid,
      isAgent: launches.isAgent,
      isAdopter: () => false,
      firstLaunchStartTime: launches.firstLaunchStartTime,
      platform: linux,
    });
  expect(may(agent.pid)).toMatchObject({ allowed: true });
  launches.begin({
    launcher: statusOf(agent.pid),
    ...{ name: "agents/billing", instance: undefined, launchedBy: [], descendants: false },
    expected: { exePath: "/bin/bash", exeSha256: "", argv: [], workingDirectory: "/", files: [] },
  });
  return { older, agent, may };
}

describe.runIf(process.platform === "linux")("administration", () => {
  test("is for an older shell and for what it starts after the first launch", async () => {
    const { older, may } = await withAgent();
    expect(may(older.pid)).toMatchObject({ allowed: true });
    const younger = await pidPrintedBy(older, "sleep 60 & echo $!");
    expect(may(younger)).toMatchObject({ allowed: true, evidence: expect.stringContaining(`process ${older.pid}`) });
  });

  test("is not for a young child of a process of systemd's name, which adopts orphans and starts what it is told", async () => {
    const { older, may } = await withAgent();
    expect(may(await pidPrintedBy(older, "sleep 60 & echo $!"))).toMatchObject({ allowed: true });
    expect(may(await pidPrintedBy(older, "printf systemd > /proc/$$/comm; sleep 60 & echo $!"))).toMatchObject({
      allowed: false,
      reason: expect.stringContaining(`systemd (process ${older.pid}) adopts orphans`),
    });
  });

  test("is not for an agent, its child, or its shell's child", async () => {
    const { older, agent, may } = await withAgent();
    expect(may(older.pid)).toMatchObject({ allowed: true });
    expect(may(agent.pid)).toMatchObject({ allowed: false });
    const child = await pidPrintedBy(agent, "sleep 60 & echo $!");
    expect(may(child)).toMatchObject({ allowed: false, reason: expect.stringContaining(`process ${agent.pid}`) });
    const grandchild = await pidPrintedBy(agent, "bash -c 'sleep 60 & echo $!; wait' &");
    expect(may(grandchild)).toMatchObject({ allowed: false });
  });

  test("is not for an orphan, whoever it was: a double fork and setsid hide the agent", async () => {
    const { older, agent, may } = await withAgent();
    const orphan = await pidPrintedBy(agent, "(setsid sleep 60 >/dev/null & echo $!)");
    await until(() => linux.ancestors(orphan)[0]?.pid !== agent.pid, "adoption");
    const refused = may(orphan);
    expect(refused).toMatchObject({ allowed: false, reason: expect.stringContaining("use the dashboard") });
    expect(may(older.pid)).toMatchObject({ allowed: true });
  });

  test("is for the owner only", async () => {
    const { older } = await withAgent();
    const rules = { isAgent: () => false, isAdopter: () => false, firstLaunchStartTime: undefined, platform: linux };
    expect(mayAdminister(statusOf(older.pid), { ...rules, ownerUid })).toMatchObject({ allowed: true });
    expect(mayAdminister(statusOf(older.pid), { ...rules, ownerUid: ownerUid + 1 })).toMatchObject({ allowed: false });
  });

  test("is refused while the parents change", () => {
    const parent = { pid: 2, startTime: 1n, uid: ownerUid, name: "bash" };
    const peer = { pid: 3, startTime: 9n, uid: ownerUid };
    const rules = { ownerUid, isAgent: () => false, isAdopter: () => false, firstLaunchStartTime: 5n };
    let reading = 0;
    const changing = () => [{ ...parent, startTime: BigInt(reading++) }];
    expect(mayAdminister(peer, { ...rules, platform: { ancestors: changing } })).toMatchObject({ allowed: false });
    expect(mayAdminister(peer, { ...rules, platform: { ancestors: () => [parent] } })).toMatchObject({ allowed: true });
  });
});
