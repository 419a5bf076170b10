import { readFileSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { SandboxGrant } from "../../src/control-api/sandbox-view.js";
import { bubblewrapArguments } from "../../src/sandbox/bubblewrap.js";
import { type Architecture, seccompFilter } from "../../src/sandbox/seccomp.js";
import { INSIDE, type Mount } from "../../src/sandbox/view.js";
import { agentid, giveTo, type RunningDev, run, startDev, startProgram } from "./agentid.js";
import { CHEAT, canSandbox, KNOCK, makeSandboxedProject, proberCommand, recorded } from "./sandboxed.js";

// Each launch starts two Nodes, and most tests several.
vi.setConfig({ testTimeout: 90_000 });

/** Knocks while another thread of it keeps the capabilities that this one gives up. */
const THREADS = `
import ctypes, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
threading.Thread(target=threading.Event().wait, daemon=True).start()
libc.prctl(47, 4, 0, 0, 0)
for capability in range(64):
    if libc.prctl(23, capability, 0, 0, 0) == 1 and libc.prctl(24, capability, 0, 0, 0) != 0: raise OSError("bounding set")
if libc.capset(ctypes.byref((ctypes.c_uint32 * 2)(0x20080522, 0)), ctypes.byref((ctypes.c_uint32 * 6)())) != 0: raise OSError("capset")
if "CapEff:\\t0000000000000000" not in open("/proc/thread-self/status").read(): raise OSError("not given up")
with socket.socket(socket.AF_UNIX) as door:
    door.connect(sys.argv[-1])
    door.sendall(b'{"listening":[]}\\n')
    print(door.makefile().read().strip(), flush=True)
`;
/** Goes through the door and becomes what it is told, with a standard input that never ends; first into another user namespace where it is told so. */
const BECOME = `
import ctypes, json, os, socket, sys
with socket.socket(socket.AF_UNIX) as door:
    door.connect(sys.argv[-1])
    door.sendall(b'{"listening":[]}\\n')
    answer = door.makefile().read()
print(answer.strip(), flush=True)
granted = json.loads(answer)
if sys.argv[1] == "apart":
    libc = ctypes.CDLL(None)
    if libc.unshare(0x10000000) != 0: raise OSError("unshare")
    # It had every capability there; what it gave up since shows no more.
    for capability in range(64):
        if libc.prctl(23, capability, 0, 0, 0) == 1 and libc.prctl(24, capability, 0, 0, 0) != 0: raise OSError("bounding set")
reading, writing = os.pipe()
os.dup2(reading, 0)
os.set_inheritable(writing, True)
os.execv(granted["executable"], granted["argv"])
`;
/** One instruction: the daemon sees that there is a filter, not which. */
const ALLOW_ALL = Buffer.from([0x06, 0, 0, 0, 0, 0, 0xff, 0x7f]);
const EVIL = `print("up 0", flush=True)\ninput()\n`;

describe.skipIf(!canSandbox)("the daemon believes the kernel, not who asked, that there is a sandbox", () => {
  const { project, home } = makeSandboxedProject();
  let dev: RunningDev;
  beforeAll(async () => {
    for (const [name, text] of [
      ["cheat.mjs", CHEAT],
      ["knock.js", KNOCK],
      ["threads.py", THREADS],
      ["become.py", BECOME],
      ["src/evil.py", EVIL],
    ] as const)
      writeFileSync(join(project, name), text);
    symlinkSync("out", join(project, "alias"));
    giveTo(project);
    dev = await startDev(project, [], { HOME: home });
  });
  afterAll(() => dev?.stop());

  type View = SandboxGrant["view"];
  interface Way {
    readonly command: readonly string[];
    /** As seen by who knocks. */
    readonly door: "inside" | "outside";
    readonly filter?: Buffer;
  }

  async function asker(): Promise<{ program: ReturnType<typeof startProgram>; view: View; door: string }> {
    const control = dev.ready.control.replace("unix://", "");
    const args = ["cheat.mjs", control, "agents/prober", JSON.stringify(proberCommand)];
    const program = startProgram(process.execPath, args, { cwd: project, env: { HOME: home } });
    const { sandbox } = JSON.parse(await program.line()) as { sandbox: SandboxGrant };
    const door = sandbox.view.mounts.find(({ at }) => at === INSIDE.door);
    return { program, view: sandbox.view, door: door !== undefined && "source" in door ? door.source : "" };
  }
  interface Before {
    /** After the question, before the door. */
    readonly meanwhile?: () => Promise<unknown>;
    /** After the door. */
    readonly afterwards?: (program: ReturnType<typeof startProgram>) => Promise<unknown>;
  }
  async function knock(way: (view: View) => Way, { meanwhile, afterwards }: Before = {}): Promise<unknown> {
    const { program, view, door } = await asker();
    try {
      await meanwhile?.();
      const { command, door: where, filter = seccompFilter(process.arch as Architecture) } = way(view);
      const told = { command, filter: filter.toString("base64"), door: where === "inside" ? INSIDE.door : door };
      program.write(`${JSON.stringify(told)}\n`);
      const answer: unknown = JSON.parse(await program.line());
      await afterwards?.(program);
      return answer;
    } finally {
      await program.end();
    }
  }

  /** Our own sandbox, with a change. */
  const ours =
    (change: (mounts: View["mounts"]) => readonly Mount[] = (mounts) => mounts, more: readonly string[] = []) =>
    (view: View): Way => {
      const node: Mount = { show: "read", source: process.execPath, at: process.execPath };
      const changed = { ...view, mounts: [...change(view.mounts), node] };
      const args = bubblewrapArguments(changed, { seccompFd: 3, disableUserNamespaces: false });
      return { command: ["bwrap", ...args, ...more], door: "inside" };
    };
  const bare =
    (...command: string[]) =>
    (): Way => ({ command, door: "outside" });
  const apart = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc"];
  const everything = ["--dev-bind", "/", "/", "--proc", "/proc"];
  const granted = { executable: realpathSync(proberCommand[0] ?? ""), argv: proberCommand };

  it("grants the launch to what is shut in as it was said", async () => {
    expect(await knock(ours())).toEqual(granted);
  });

  const [interpreter = "", script = ""] = proberCommand;
  const capable = ["CAP_SYS_ADMIN", "CAP_SETPCAP"].flatMap((capability) => ["--cap-add", capability]);
  const cheats: readonly [what: string, way: (view: View) => Way, answer: RegExp][] = [
    ["no sandbox at all", bare("/usr/bin/env"), /shares the user, mnt, pid, net, ipc namespace/],
    ["one with the host's network", bare(...apart, ...everything), /shares the net namespace/],
    [
      "one without a filter of system calls",
      bare(...apart, "--unshare-net", "--cap-drop", "ALL", ...everything),
      /not filtered/,
    ],
    ["one with a capability", ours(undefined, ["--cap-add", "CAP_SYS_ADMIN"]), /it has capabilities/],
    [
      "one in which another thread has a capability",
      ours(undefined, [...capable, interpreter, "threads.py"]),
      /it has capabilities/,
    ],
    [
      "one in which a secret is seen",
      ours((mounts) => [...mounts, { show: "read", source: join(home, ".ssh"), at: join(home, ".ssh") }]),
      /it sees .*\.ssh/,
    ],
    [
      "one in which the policies can be written",
      ours((mounts) =>
        mounts.map((mount) =>
          mount.show === "read" && mount.at.endsWith("/policies") ? { ...mount, show: "write" } : mount,
        ),
      ),
      /it may write .*policies/,
    ],
    [
      "one with another folder in place of one that it may write",
      ours((mounts) =>
        mounts.map((mount) => (mount.show === "write" ? { ...mount, source: join(project, "src") } : mount)),
      ),
      /another folder stands at .*out/,
    ],
    [
      "the same behind a link that leads to the right one outside",
      ours((mounts) => [
        ...mounts
          .filter(({ at }) => at !== join(project, "alias"))
          .map((mount): Mount => {
            return mount.show === "write" ? { show: "link", at: mount.at, to: join(project, "alias") } : mount;
          }),
        { show: "write", source: join(project, "src"), at: join(project, "alias") },
      ]),
      /another folder stands at .*out/,
    ],
  ];
  it.each(cheats)("refuses %s, on record", async (_, way, answer) => {
    expect(await knock(way)).toMatchObject({ refused: expect.stringMatching(answer) });
    expect(JSON.stringify((await recorded("launch.refused", project)).at(-1))).toMatch(answer);
  });

  it("asks again at the door whether the launch may be: it was revoked, or its entry changed, meanwhile", async () => {
    const revoke = (...args: string[]) => agentid(["revoke", ...args, "agents/prober"], { cwd: project });
    expect(await knock(ours(), { meanwhile: () => revoke() })).toEqual({ refused: "agents/prober is revoked" });
    expect((await revoke("--undo")).code).toBe(0);
    expect(await knock(ours())).toEqual(granted);
    const file = join(project, "agentid.yaml");
    const before = readFileSync(file, "utf8");
    const save = async (text: string) => {
      const seen = dev.events.length;
      writeFileSync(file, text);
      await dev.until((event) => event.event === "reload", seen);
    };
    const narrower = before.replace("write: [out]", "write: []");
    expect(await knock(ours(), { meanwhile: () => save(narrower) })).toMatchObject({
      refused: expect.stringContaining("has changed meanwhile"),
    });
    await save(before);
  });

  /** The identities of what went through the door and became a program that says it is up. */
  async function identitiesOf(way: (view: View) => Way): Promise<unknown> {
    let identities: unknown;
    const answer = await knock(way, {
      async afterwards(program) {
        expect(await program.line()).toMatch(/^up /);
        const pid = /"pid":(\d+)/.exec(JSON.stringify((await recorded("launch.granted", project)).at(-1)))?.[1] ?? "";
        const { stdout } = await agentid(["attest", pid, "--json"], { cwd: project });
        identities = (JSON.parse(stdout) as { identities: { name: string }[] }).identities.map(({ name }) => name);
      },
    });
    expect(answer).toEqual(granted);
    return identities;
  }
  const becoming = (how: string) => [interpreter, "become.py", how];

  it("gives no identity to another script at the path of the pinned one", async () => {
    expect(await identitiesOf(ours(undefined, becoming("plainly")))).toEqual(["agents/prober"]);
    const another = ours(
      (mounts) => [
        ...mounts.filter(({ at }) => at !== join(project, "agents")),
        { show: "read", source: join(project, "src", "evil.py"), at: join(project, script) },
      ],
      becoming("plainly"),
    );
    expect(await identitiesOf(another)).toEqual([]);
  });

  it("gives none to a program that entered another user namespace after the door, where it could name any file as its executable", async () => {
    const lax = (how: string) => (view: View) => ({ ...ours(undefined, becoming(how))(view), filter: ALLOW_ALL });
    expect(await identitiesOf(lax("plainly"))).toEqual(["agents/prober"]);
    expect(await identitiesOf(lax("apart"))).toEqual([]);
  });

  it("lets no stranger in", async () => {
    const { program, door } = await asker();
    try {
      const knocked = await run(process.execPath, ["knock.js", door], { cwd: project });
      expect(JSON.parse(knocked.stdout)).toMatchObject({
        refused: expect.stringContaining("does not descend from process"),
      });
    } finally {
      await program.end();
    }
  });
});
