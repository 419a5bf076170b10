import { existsSync, mkdirSync, readdirSync, realpathSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { createCallerAttestor } from "../../src/attestation/attestor.js";
import type { Caller } from "../../src/attestation/caller.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../src/attestation/launches.js";
import { selectorsOf } from "../../src/attestation/selectors.js";
import type { IdentityConfig, RequiredFacts } from "../../src/config/config.js";
import { createIdentityRegistry } from "../../src/identity/registry.js";
import { linux } from "../../src/platform/linux.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";
import {
  atEnd,
  cleanUp,
  descriptorOf,
  isRoot,
  listen,
  NOBODY,
  PYTHON,
  start,
  startTold,
  temporaryFolder,
} from "./processes.js";

afterEach(cleanUp);

const digests = executableDigests();

function attestor(parentsMatter = false, cgroupsMatter = () => true) {
  const launches = createLaunchRegistry({ platform: linux, digests });
  atEnd(() => launches.close());
  return createCallerAttestor({
    platform: linux,
    launches,
    digests,
    parentsMatter: () => parentsMatter,
    cgroupsMatter,
  });
}

/** Which of two identities follow: one that asks for `facts`, one that asks for the user only. */
function following(caller: Caller, facts: RequiredFacts) {
  const identity = (name: string, asked: RequiredFacts): IdentityConfig => ({
    ...{ name, id: SpiffeId.of(TrustDomain.parse("shop.local"), name), facts: asked },
    ...{ launch: undefined, service: undefined, dnsNames: [], hint: "" },
  });
  const identities = [identity("agents/it", facts), identity("agents/user", { uid: caller.facts.uid })];
  const { granted, missed } = createIdentityRegistry({ identities }, { identities: {} }).entitlementsOf(caller);
  return {
    granted: granted.map(({ identity: { name }, evidence }) => `${name} ${evidence}`),
    missed: missed.map(({ detail }) => detail),
  };
}

const ROOTS = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
const hierarchy = ROOTS.find(
  (root) => existsSync(join(root, "cgroup.procs")) && existsSync(join(root, "cgroup.controllers")),
);
const makesGroups = isRoot && hierarchy !== undefined && succeeds(() => group("agentid-test-probe.slice"));

function succeeds(action: () => unknown): boolean {
  try {
    action();
    return true;
  } catch {
    process.stderr.write("SKIPPED: control groups cannot be made here\n");
    return false;
  }
}

function group(path: string): string {
  const folder = join(hierarchy ?? "", path);
  mkdirSync(folder, { recursive: true });
  atEnd(async () => {
    // Its processes have just been killed; the kernel takes a moment to empty it.
    await expect.poll(() => succeedsQuietly(() => rmdirSync(folder)), { timeout: 5_000 }).toBe(true);
    const parent = join(folder, "..");
    if (parent !== hierarchy && readdirSync(parent, { withFileTypes: true }).every((entry) => !entry.isDirectory())) {
      succeedsQuietly(() => rmdirSync(parent));
    }
  });
  return folder;
}

function succeedsQuietly(action: () => unknown): boolean {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}

const move = (pid: number, folder: string): void => writeFileSync(join(folder, "cgroup.procs"), String(pid));

describe.runIf(process.platform === "linux" && makesGroups)("the control group", () => {
  test("gives the unit's identity while the process is in it, and the caller goes on without when it is moved", async () => {
    const [unit, other] = [group("agentid-test.slice/planner.service"), group("agentid-test.slice/other.service")];
    const listening = await listen({ path: join(temporaryFolder(), "s") });
    const process = startTold();
    move(process.pid, unit);
    await process.does(`connect ${listening.address}`);
    const caller = await attestor().ofUnixSocket(descriptorOf(await listening.accepted()));
    atEnd(() => caller.close());
    const cgroup = "/agentid-test.slice/planner.service";
    expect(caller.facts).toMatchObject({ cgroup, systemdUnit: "planner.service" });
    expect(selectorsOf(caller.facts)).toEqual(
      expect.arrayContaining(["systemd:id:planner.service", `agentid:cgroup:${cgroup}`]),
    );
    const asked = { systemdUnit: "planner.service", cgroup };
    expect(following(caller, asked).granted).toEqual(["agents/it kernel", "agents/user kernel"]);
    caller.recheck();
    expect(following(caller, asked).granted).toHaveLength(2);

    move(process.pid, other);
    caller.recheck();
    expect(following(caller, asked)).toEqual({
      granted: ["agents/user kernel"],
      missed: [expect.stringContaining("it was moved to another cgroup since it connected")],
    });
    // Coming back does not revive it: only a new connection does.
    move(process.pid, unit);
    caller.recheck();
    expect(following(caller, asked).granted).toEqual(["agents/user kernel"]);
  });

  test("is not looked at while no identity asks for it, and is known from the first look after one does", async () => {
    const [unit, other] = [group("agentid-test.slice/planner.service"), group("agentid-test.slice/other.service")];
    const listening = await listen({ path: join(temporaryFolder(), "s") });
    const process = startTold();
    move(process.pid, unit);
    await process.does(`connect ${listening.address}`);
    let asked = false;
    const caller = await attestor(false, () => asked).ofUnixSocket(descriptorOf(await listening.accepted()));
    atEnd(() => caller.close());
    caller.recheck();
    const wanted = { systemdUnit: "planner.service" };
    expect(following(caller, wanted)).toEqual({
      granted: ["agents/user kernel"],
      missed: [expect.stringContaining("no identity asks for it")],
    });
    asked = true;
    caller.recheck();
    expect(following(caller, wanted).granted).toEqual(["agents/it kernel", "agents/user kernel"]);
    expect(caller.facts.missing).not.toHaveProperty("systemdUnit");
    expect(caller.facts.missing.containerId).toContain("names none");
    // From then on as for every other.
    move(process.pid, other);
    caller.recheck();
    move(process.pid, unit);
    caller.recheck();
    expect(following(caller, wanted).granted).toEqual(["agents/user kernel"]);
  });

  test("cannot be entered by an ordinary user", async () => {
    const unit = group("agentid-test.slice/planner.service");
    const liar = start("sh", ["-c", `echo $$ > ${unit}/cgroup.procs || echo refused; read line`], {
      ...{ uid: NOBODY, gid: NOBODY, cwd: "/" },
    });
    expect(await liar.line()).toBe("refused");
    const caller = await attestor().ofPid(liar.pid);
    atEnd(() => caller.close());
    expect(caller.facts.systemdUnit).not.toBe("planner.service");
  });

  test("is absent for a process in none, and says so", async () => {
    const child = start("sh", ["-c", "read line"]);
    move(child.pid, hierarchy ?? "");
    const caller = await attestor().ofPid(child.pid);
    atEnd(() => caller.close());
    if (caller.facts.cgroup !== undefined) return; // systemd keeps a hierarchy of its own here
    expect(caller.facts.missing).toMatchObject({ systemdUnit: "it is in no cgroup below ours" });
    expect(following(caller, { systemdUnit: "planner.service" }).missed[0]).toContain("it is in no cgroup below ours");
  });
});

describe.runIf(process.platform === "linux")("the parent's executable", () => {
  /** Starts a child that connects, and becomes another program when it is told to. */
  const PARENT = `
import os, signal, subprocess, sys
signal.signal(signal.SIGUSR1, lambda *_: os.execv("/bin/sleep", ["sleep", "600"]))
child = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); time.sleep(600)"
print(subprocess.Popen([sys.executable, "-c", child, sys.argv[1]], stdin=subprocess.DEVNULL).pid, flush=True)
while True: signal.pause()
`;

  async function withParent() {
    const listening = await listen({ path: join(temporaryFolder(), "s") });
    const parent = start(PYTHON, ["-c", PARENT, listening.address]);
    const childPid = Number(await parent.line());
    atEnd(() => void succeedsQuietly(() => process.kill(childPid, "SIGKILL")));
    const caller = await attestor(true).ofUnixSocket(descriptorOf(await listening.accepted()));
    atEnd(() => caller.close());
    expect(caller.facts.pid).toBe(childPid);
    return { parent, caller };
  }

  test("is attested as the child's own is, and gives weaker evidence", async () => {
    const { caller } = await withParent();
    const path = realpathSync(PYTHON);
    expect(caller.facts).toMatchObject({ parentExePath: path, parentExeSha256: caller.facts.exeSha256 });
    expect(selectorsOf(caller.facts)).toEqual(
      expect.arrayContaining([`agentid:parent_path:${path}`, `agentid:parent_sha256:${caller.facts.exeSha256}`]),
    );
    expect(following(caller, { parentExePath: path }).granted).toEqual(["agents/it parent", "agents/user kernel"]);
    expect(following(caller, { parentExePath: "/bin/false" }).granted).toEqual(["agents/user kernel"]);
    caller.recheck();
    expect(caller.facts.parentExePath).toBe(path);
  });

  test.each(["SIGKILL", "SIGUSR1"] as const)(
    "ends when the parent does (%s), and the caller goes on",
    async (signal) => {
      const { parent, caller } = await withParent();
      const asked = { parentExePath: realpathSync(PYTHON) };
      expect(following(caller, asked).granted).toHaveLength(2);
      parent.process.kill(signal);
      await expect
        .poll(() => {
          caller.recheck();
          return following(caller, asked);
        })
        .toEqual({
          granted: ["agents/user kernel"],
          missed: [expect.stringContaining("its parent has exited or executed another program")],
        });
    },
  );

  test("is not looked at where no identity asks for it", async () => {
    const listening = await listen({ path: join(temporaryFolder(), "s") });
    const child = startTold();
    await child.does(`connect ${listening.address}`);
    const socket = await listening.accepted();
    const without = await attestor(false).ofUnixSocket(descriptorOf(socket));
    expect(without.facts).not.toHaveProperty("parentExePath");
    expect(without.facts.missing.parentExePath).toContain("no identity asks for it");
    without.close();
    const asked = await attestor(true).ofUnixSocket(descriptorOf(socket));
    expect(asked.facts.parentExePath).toBe(process.execPath);
    asked.close();
  });
});
