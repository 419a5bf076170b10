import { readFileSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { SandboxGrant } from "../../src/control-api/sandbox-view.js";
import { bubblewrapArguments } from "../../src/sandbox/bubblewrap.js";
import { type Architecture, seccompFilter } from "../../src/sandbox/seccomp.js";
import { INSIDE, type Mount } from "../../src/sandbox/view.js";
import { agentid, giveTo, type RunningDev, run, startDev, startProgram } from "./agentid.js";
import { canSandbox, makeSandboxedProject, proberCommand, recorded } from "./sandboxed.js";

// Each launch starts two Nodes, and most tests several.
vi.setConfig({ testTimeout: 90_000 });

/**
 * Asks for a sandboxed launch as `agentid run` does, says what it was told, and comes to the door in the way it is told: `command` is executed with
 * what knocks, `filter` is its descriptor 3.
 */
const CHEAT = `
import { spawnSync } from "node:child_process";
import { openSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createInterface } from "node:readline";
const [socketPath, name, command] = process.argv.slice(2);
const body = JSON.stringify({ name, argv: JSON.parse(command), workingDirectory: process.cwd(), sandbox: true });
const asking = request({ socketPath, method: "POST", path: "/v1/launch", headers: { "content-type": "application/json" } }, (response) => {
  let text = "";
  response.on("data", (chunk) => { text += chunk; });
  response.on("end", () => console.log(text));
});
asking.end(body);
createInterface({ input: process.stdin }).once("line", (line) => {
  const { command, filter, door } = JSON.parse(line);
  writeFileSync("out/filter", Buffer.from(filter, "base64"));
  const [first, ...rest] = [...command, process.execPath, "knock.js", door];
  const stdio = ["ignore", "pipe", "pipe", openSync("out/filter", "r")];
  const { stdout, stderr } = spawnSync(first, rest, { encoding: "utf8", stdio });
  console.log((stdout + stderr).trim());
  process.exit();
});
`;
const KNOCK = `
const socket = require("node:net").connect(process.argv[2], () => socket.write('{"listening":[]}\\n'));
socket.on("data", (data) => { console.log(data.toString()); process.exit(); });
socket.on("error", (error) => { console.log(error.message); process.exit(); });
`;

describe.skipIf(!canSandbox)("the daemon believes the kernel, not who asked, that there is a sandbox", () => {
  const { project, home } = makeSandboxedProject();
  let dev: RunningDev;
  beforeAll(async () => {
    for (const [name, text] of [
      ["cheat.mjs", CHEAT],
      ["knock.js", KNOCK],
    ] as const)
      writeFileSync(join(project, name), text);
    giveTo(project);
    dev = await startDev(project, [], { HOME: home });
  });
  afterAll(() => dev?.stop());

  type View = SandboxGrant["view"];
  interface Way {
    readonly command: readonly string[];
    /** As seen by who knocks. */
    readonly door: "inside" | "outside";
  }

  async function asker(): Promise<{ program: ReturnType<typeof startProgram>; view: View; door: string }> {
    const control = dev.ready.control.replace("unix://", "");
    const args = ["cheat.mjs", control, "agents/prober", JSON.stringify(proberCommand)];
    const program = startProgram(process.execPath, args, { cwd: project, env: { HOME: home } });
    const { sandbox } = JSON.parse(await program.line()) as { sandbox: SandboxGrant };
    const door = sandbox.view.mounts.find(({ at }) => at === INSIDE.door);
    return { program, view: sandbox.view, door: door !== undefined && "source" in door ? door.source : "" };
  }
  async function knock(way: (view: View) => Way, meanwhile?: () => Promise<unknown>): Promise<unknown> {
    const { program, view, door } = await asker();
    try {
      await meanwhile?.();
      const { command, door: where } = way(view);
      const filter = seccompFilter(process.arch as Architecture).toString("base64");
      program.write(`${JSON.stringify({ command, filter, door: where === "inside" ? INSIDE.door : door })}\n`);
      return JSON.parse(await program.line());
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
  ];
  it.each(cheats)("refuses %s, on record", async (_, way, answer) => {
    expect(await knock(way)).toMatchObject({ refused: expect.stringMatching(answer) });
    expect(JSON.stringify((await recorded("launch.refused", project)).at(-1))).toMatch(answer);
  });

  it("asks again at the door whether the launch may be: it was revoked, or its entry changed, meanwhile", async () => {
    const revoke = (...args: string[]) => agentid(["revoke", ...args, "agents/prober"], { cwd: project });
    expect(await knock(ours(), () => revoke())).toEqual({ refused: "agents/prober is revoked" });
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
    expect(await knock(ours(), () => save(narrower))).toMatchObject({
      refused: expect.stringContaining("has changed meanwhile"),
    });
    await save(before);
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
