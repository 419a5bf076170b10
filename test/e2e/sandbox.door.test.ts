import { readFileSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentid, bin, giveTo, type RunningDev, run, startDev, startProgram } from "./agentid.js";
import { canSandbox, makeSandboxedProject, proberCommand, recorded } from "./sandboxed.js";

/** Asks for a sandboxed launch as `agentid run` does, and comes to the door in another way. */
const CHEAT = `
import { spawnSync } from "node:child_process";
import { openSync, writeFileSync } from "node:fs";
import { request } from "node:http";
const { bubblewrapArguments } = await import(process.env.DIST + "/sandbox/bubblewrap.js");
const { seccompFilter } = await import(process.env.DIST + "/sandbox/seccomp.js");
const [socketPath, name, command, how] = process.argv.slice(2);
const knock = (command, door, stdio = []) => {
  const { stdout, stderr } = spawnSync(command[0], [...command.slice(1), process.execPath, "knock.js", door], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe", ...stdio] });
  console.log(stdout + stderr);
};
/** Our own sandbox, changed. */
const built = (view, change, more = []) => {
  writeFileSync("out/filter", seccompFilter(process.arch));
  const own = { show: "read", source: process.execPath, at: process.execPath };
  const args = bubblewrapArguments({ ...view, mounts: [...change(view.mounts), own] }, { seccompFd: 3, disableUserNamespaces: false });
  knock(["bwrap", ...args, ...more], "/run/agentid/door.sock", [openSync("out/filter", "r")]);
};
const ways = {
  stranger: (door) => { console.log(door); setInterval(() => {}, 1000); },
  bare: (door) => knock(["/usr/bin/env"], door),
  online: (door) => knock(["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--dev-bind", "/", "/", "--proc", "/proc"], door),
  unfiltered: (door) => knock(["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--cap-drop", "ALL", "--dev-bind", "/", "/", "--proc", "/proc"], door),
  patient: (_, view) => { console.log("waiting"); process.stdin.once("data", () => { built(view, (mounts) => mounts); process.exit(); }); },
  whole: (_, view) => built(view, (mounts) => mounts),
  leaky: (_, view) => built(view, (mounts) => [...mounts, { show: "read", source: process.env.HOME + "/.ssh", at: process.env.HOME + "/.ssh" }]),
  writable: (_, view) => built(view, (mounts) => mounts.map((mount) => mount.at.endsWith("/policies") ? { ...mount, show: "write" } : mount)),
  mighty: (_, view) => built(view, (mounts) => mounts, ["--cap-add", "CAP_SYS_ADMIN"]),
  swapped: (_, view) => built(view, (mounts) => mounts.map((mount) => mount.at.endsWith("/out") ? { ...mount, source: mount.source.replace(/out$/, "src") } : mount)),
};
const body = JSON.stringify({ name, argv: JSON.parse(command), workingDirectory: process.cwd(), sandbox: true });
const asking = request({ socketPath, method: "POST", path: "/v1/launch", headers: { "content-type": "application/json" } }, (response) => {
  let text = "";
  response.on("data", (chunk) => { text += chunk; });
  response.on("end", () => {
    const { view } = JSON.parse(text).sandbox;
    ways[how](view.mounts.find(({ at }) => at === "/run/agentid/door.sock").source, view);
  });
});
asking.end(body);
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

  const cheat = (how: string) => [
    ...["cheat.mjs", dev.ready.control.replace("unix://", ""), "agents/prober", JSON.stringify(proberCommand), how],
  ];
  const env = { HOME: home, DIST: join(bin, "..", "..", "dist") };

  it("grants the launch to what is shut in as it was said", async () => {
    const finished = await run(process.execPath, cheat("whole"), { cwd: project, env });
    expect(JSON.parse(finished.stdout)).toEqual({
      executable: realpathSync(proberCommand[0] ?? ""),
      argv: proberCommand,
    });
  });

  const cheats: readonly [what: string, how: string, answer: RegExp][] = [
    ["no sandbox at all", "bare", /shares the user, mnt, pid, net, ipc namespace/],
    ["one with the host's network", "online", /shares the net namespace/],
    ["one without a filter of system calls", "unfiltered", /not filtered/],
    ["one with a capability", "mighty", /it has capabilities/],
    ["one in which a secret is seen", "leaky", /it sees .*\.ssh/],
    ["one in which the policies can be written", "writable", /it may write .*policies/],
    ["one with another folder in place of one that it may write", "swapped", /another folder stands at .*out/],
  ];
  it.each(cheats)("refuses %s, on record", async (_, how, answer) => {
    const finished = await run(process.execPath, cheat(how), { cwd: project, env });
    expect(JSON.parse(finished.stdout)).toMatchObject({ refused: expect.stringMatching(answer) });
    expect(JSON.stringify((await recorded("launch.refused", project)).at(-1))).toMatch(answer);
  });

  it("asks again at the door whether the launch may be: it was revoked, or its entry changed, meanwhile", async () => {
    const patient = async (meanwhile: () => Promise<unknown>): Promise<unknown> => {
      const asker = startProgram(process.execPath, cheat("patient"), { cwd: project, env });
      expect(await asker.line()).toBe("waiting");
      await meanwhile();
      asker.write("go\n");
      const answer: unknown = JSON.parse(await asker.line());
      await asker.end();
      return answer;
    };
    expect(await patient(async () => {})).toHaveProperty("executable");
    const revoke = (...args: string[]) => agentid(["revoke", ...args, "agents/prober"], { cwd: project });
    expect(await patient(() => revoke())).toEqual({ refused: "agents/prober is revoked" });
    expect((await revoke("--undo")).code).toBe(0);
    const file = join(project, "agentid.yaml");
    const before = readFileSync(file, "utf8");
    const narrower = async () => {
      const seen = dev.events.length;
      writeFileSync(file, before.replace("write: [out]", "write: []"));
      await dev.until((event) => event.event === "reload", seen);
    };
    expect(await patient(narrower)).toMatchObject({ refused: expect.stringContaining("has changed meanwhile") });
    writeFileSync(file, before);
  });

  it("a stranger at the door", async () => {
    const asker = startProgram(process.execPath, cheat("stranger"), { cwd: project, env });
    try {
      const door = await asker.line();
      const knocked = await run(process.execPath, ["knock.js", door], { cwd: project });
      expect(JSON.parse(knocked.stdout)).toMatchObject({
        refused: expect.stringContaining("does not descend from process"),
      });
    } finally {
      await asker.end();
    }
  });
});
