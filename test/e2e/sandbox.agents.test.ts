import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { SandboxGrant } from "../../src/control-api/sandbox-view.js";
import { bubblewrapArguments } from "../../src/sandbox/bubblewrap.js";
import { type Architecture, seccompFilter } from "../../src/sandbox/seccomp.js";
import { INSIDE, type Mount } from "../../src/sandbox/view.js";
import { agentid, bin, giveTo, ordinaryUser, type RunningDev, run, startDev } from "./agentid.js";
import {
  CHEAT,
  canSandbox,
  KNOCK,
  launchedAs,
  makeSandboxedProject,
  type Prober,
  proberCommand,
  recorded,
} from "./sandboxed.js";

// Each launch starts two Nodes, and most tests several.
vi.setConfig({ testTimeout: 90_000 });

const command = JSON.stringify(proberCommand);
const IDENTITIES = `  agents/lead:
    launch: { command: ${command}, subagents: [agents/prober] }
  agents/shut:
    launch: { command: ${command}, subagents: [agents/prober], children: true, sandbox: true }
  agents/many:
    launch: { command: ${command}, instances: true, sandbox: true }
  agents/exact:
    launch: { command: ${command} }
    exe: { sha256: pinned }`;
const POLICY = `rules:
  - name: lead-reads
    allow: { from: agents/lead, to: services/invoices, method: GET, path: /v1/lead/** }
  - name: shut-reads
    allow: { from: agents/shut, to: services/invoices, method: GET, path: /v1/** }
  - name: instances-read
    allow: { from: agents/many/*, to: services/invoices, method: GET, path: /v1/** }
`;

const call = (path: string) =>
  `import os, urllib.request\nvalue = urllib.request.urlopen(os.environ["AGENTID_URL_INVOICES"] + ${JSON.stringify(path)}, timeout=10).read().decode()`;
const speaksAs = (name: string) => ({ ok: true, value: expect.stringContaining(`URI=spiffe://shop.local/${name}`) });
const FORBIDDEN = { ok: false, error: expect.stringContaining("HTTP Error 403") };

describe.skipIf(!canSandbox)("launches with children, instances and sub-agents, and the sandbox", () => {
  const { project, home } = makeSandboxedProject({ more: IDENTITIES });
  const programs: Pick<Prober, "end">[] = [];
  let dev: RunningDev;
  beforeAll(async () => {
    for (const [name, text] of [
      ["policies/more.yaml", POLICY],
      ["cheat.mjs", CHEAT],
      ["knock.js", KNOCK],
    ] as const)
      writeFileSync(join(project, name), text);
    giveTo(project);
    dev = await startDev(project, [], { HOME: home });
  });
  afterAll(async () => {
    for (const program of programs) await program.end();
    await dev?.stop();
  });

  async function launch(...words: string[]): Promise<Prober> {
    const agent = await launchedAs(words, { project, home });
    programs.push(agent);
    return agent;
  }
  const grants = async () => JSON.stringify((await recorded("launch.granted", project)).at(-1));

  /** Starts a program below the agent, which stays, and says its first line. */
  const start = (argv: readonly string[]) =>
    `import subprocess, sys\nsys.below = subprocess.Popen(${JSON.stringify(argv)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)\nvalue = sys.below.stdout.readline()`;
  /** Writes a line to it and says its next one. */
  const tell = (line: string) =>
    `import sys\nsys.below.stdin.write(${JSON.stringify(`${line}\n`)})\nsys.below.stdin.flush()\nvalue = sys.below.stdout.readline()`;

  it("a sub-agent in a sandbox carries its chain: it is permitted only what the agent above it is", async () => {
    const lead = await launch("agents/lead");
    const sub = [process.execPath, bin, "run", "--sandbox", "agents/prober", "--", ...proberCommand];
    expect(await lead.attempt(start(sub))).toMatchObject({ value: expect.stringMatching(/^up /) });
    expect(await grants()).toContain('"launchedBy":["spiffe://shop.local/agents/lead"]');
    expect(await grants()).toContain('"sandbox":{');
    const ask = async (path: string): Promise<unknown> =>
      JSON.parse(String((await lead.attempt(tell(Buffer.from(call(path)).toString("base64")))).value));
    expect(await ask("/v1/lead/x")).toMatchObject(speaksAs("agents/prober"));
    expect(await ask("/v1/x")).toMatchObject(FORBIDDEN);
    // The control: without anybody above it, the same agent may.
    expect(await (await launch("--sandbox", "agents/prober")).attempt(call("/v1/x"))).toMatchObject(
      speaksAs("agents/prober"),
    );
  });

  it("the chain of a sub-agent is looked at again at the door", async () => {
    const knock = async (meanwhile: () => Promise<unknown>): Promise<unknown> => {
      const lead = await launch("agents/lead");
      const control = dev.ready.control.replace("unix://", "");
      const asked = await lead.attempt(
        start([process.execPath, "cheat.mjs", control, "agents/prober", JSON.stringify(proberCommand)]),
      );
      const { sandbox } = JSON.parse(String(asked.value)) as { sandbox: SandboxGrant };
      await meanwhile();
      const node: Mount = { show: "read", source: process.execPath, at: process.execPath };
      const view = { ...sandbox.view, mounts: [...sandbox.view.mounts, node] };
      const bubblewrap = ["bwrap", ...bubblewrapArguments(view, { seccompFd: 3, disableUserNamespaces: false })];
      const filter = seccompFilter(process.arch as Architecture).toString("base64");
      const told = await lead.attempt(tell(JSON.stringify({ command: bubblewrap, filter, door: INSIDE.door })));
      return JSON.parse(String(told.value));
    };
    const revoke = (...args: string[]) => agentid(["revoke", ...args, "agents/lead"], { cwd: project });
    expect(await knock(async () => {})).toMatchObject({ argv: proberCommand });
    expect(await knock(() => revoke())).toMatchObject({ refused: expect.stringContaining("agents/lead") });
    expect((await revoke("--undo")).code).toBe(0);
  });

  it("children inside have the identity where the entry says so, orphans never", async () => {
    const agent = await launch("--sandbox", "agents/shut");
    const byChild = (code: string) =>
      `import subprocess, sys\nvalue = subprocess.run([sys.executable, "-c", ${JSON.stringify(code)}], capture_output=True, text=True)\nvalue = value.stdout + value.stderr`;
    expect(await agent.attempt(byChild(`${call("/v1/x")}\nprint(value)`))).toMatchObject(speaksAs("agents/shut"));
    const orphan = `import os, time
parent = os.getpid()
if os.fork() > 0: os.wait(); raise SystemExit
if os.fork() > 0: os._exit(0)
while os.getppid() == parent or os.getppid() != 1: time.sleep(0.01)
${call("/v1/x")}
print(value)`;
    expect(await agent.attempt(byChild(orphan))).toMatchObject({ value: expect.stringContaining("HTTP Error 403") });
  });

  it("does not reach the control socket from inside, and would be refused there", async () => {
    const shut = await launch("--sandbox", "agents/shut");
    const pid = /"pid":(\d+)/.exec(await grants())?.[1] ?? "";
    const path = dev.ready.control.replace("unix://", "");
    const connect = `import socket\nsocket.socket(socket.AF_UNIX).connect(${JSON.stringify(path)})`;
    expect(await shut.attempt(connect)).toMatchObject({ ok: false, error: expect.stringContaining("FileNotFound") });
    expect(await (await launch("agents/lead")).attempt(connect)).toMatchObject({ ok: true });
    if (process.getuid?.() !== 0 || ordinaryUser === undefined) {
      process.stderr.write("SKIPPED: only root can bring a process into a sandbox that sees the control socket\n");
      return;
    }
    const { uid, gid } = ordinaryUser;
    const as = ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--clear-groups", process.execPath, bin];
    const asked = ["run", "--sandbox", "agents/prober", "--", ...proberCommand];
    const root = { cwd: project, env: { ...dev.env, HOME: home }, user: { uid: 0, gid: 0 } };
    const [first = "", ...rest] = as;
    expect(await run(first, [...rest, ...asked], root)).toMatchObject({ code: 0 });
    const inside = await run("nsenter", [`--net=/proc/${pid}/ns/net`, ...as, ...asked], root);
    expect(inside).toMatchObject({ code: 3, stderr: expect.stringContaining("runs inside the sandbox of a launch") });
    const status = await run("nsenter", [`--net=/proc/${pid}/ns/net`, ...as, "status"], root);
    expect(status.code).not.toBe(0);
    expect((await run(first, [...rest, "status"], root)).code).toBe(0);
  });

  it("an instance in a sandbox speaks as itself, and once", async () => {
    const agent = await launch("--sandbox", "--instance", "a", "agents/many");
    expect(await agent.attempt(call("/v1/x"))).toMatchObject(speaksAs("agents/many/a"));
    const again = (instance: string) =>
      run(process.execPath, [bin, "run", "--sandbox", "--instance", instance, "agents/many", "--", ...proberCommand], {
        cwd: project,
        env: { HOME: home },
      });
    expect(await again("a")).toMatchObject({ code: 3, stderr: expect.stringContaining("agents/many/a runs already") });
    expect(await again("b")).toMatchObject({ code: 0 });
  });

  it("an entry that asks for its executable's digest too is not launched in a sandbox, where no process has one", async () => {
    const runIt = (...words: string[]) =>
      run(process.execPath, [bin, "run", ...words, "--", ...proberCommand], { cwd: project, env: { HOME: home } });
    expect(await runIt("--sandbox", "agents/exact")).toMatchObject({
      code: 3,
      stderr: expect.stringContaining("`launch` alone pins the program already"),
    });
    expect(await runIt("agents/exact")).toMatchObject({ code: 0 });
  });
});
