import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { messageOf } from "../../src/coded-error.js";
import { bin, makeProject, ordinaryUser, python, type Ready, type startProgram } from "../e2e/agentid.js";
import { canSandbox } from "../e2e/sandboxed.js";
import { AGENT, ASK } from "./administering.js";
import { type Booted, boot, canBoot } from "./booted.js";

/*
 * A real systemd, booted, and the manager of an ordinary user: what an agent gains by telling it to start something, and what its units are named in
 * /proc against what it says itself.
 */

/** Puts itself into a group below its own, by a name of its choice. */
const BELOW = `import os
own = "/sys/fs/cgroup" + open("/proc/self/cgroup").read().rstrip().rpartition("0::")[2]
os.mkdir(f"{own}/planner.service")
open(f"{own}/planner.service/cgroup.procs", "w").write(str(os.getpid()))
os.execv("/bin/sleep", ["sleep", "600"])
`;

type Running = ReturnType<typeof startProgram>;
const agentCommand = [python ?? "python3", "agents/agent.py"];

describe.skipIf(!canBoot)("beside a systemd that was booted", () => {
  const project = makeProject({
    "agentid.yaml": `trustDomain: shop.local
identities:
  agents/agent: { launch: ${JSON.stringify(agentCommand)} }
  agents/other: { launch: ${JSON.stringify([...agentCommand, "other"])} }
  agents/planner: { systemdUserUnit: planner.service }
  agents/nightly: { systemdUnit: nightly.service }
`,
    "agents/ask.py": ASK,
    "agents/agent.py": AGENT,
    "agents/below.py": BELOW,
  });
  const ask = join(project, "agents", "ask.py");
  let system: Booted;
  let dev: Running;
  let ownersShell: Running;
  let agent: Running;
  let sandboxed: Running | undefined;
  let control: string;
  let beforeAnyAgent: string;
  let files = 0;

  const newFile = (): string => join(project, `answer-${files++}`);
  const command = (file: string): string => `${python} ${ask} ${control} > ${file}`;
  const contents = (file: string): string => (existsSync(file) ? readFileSync(file, "utf8").trim() : "");
  const contentsOf = async (file: string): Promise<string> => {
    await vi.waitUntil(() => /^\d+$/.test(contents(file)), { timeout: 20_000 }).catch(() => undefined);
    return contents(file);
  };

  let lacks: string | undefined;
  beforeEach((context) => {
    if (lacks !== undefined) context.skip(lacks);
  });

  beforeAll(async () => {
    try {
      system = await boot();
    } catch (thrown) {
      lacks = `systemd was started and did not come up: ${messageOf(thrown)}`;
      process.stderr.write(`SKIPPED: ${lacks}\n`);
      return;
    }
    // The bus starts with the first who asks, and then is older than any agent: as on any desktop.
    await system.asUser("busctl", "--user", "list");
    dev = system.start(process.execPath, [bin, "dev", "--ephemeral", "--json"], { cwd: project });
    let ready: Ready | undefined;
    while (ready === undefined) {
      const event = JSON.parse(await dev.line()) as { event?: string };
      if (event.event === "ready") ready = event as Ready;
    }
    control = ready.control.replace("unix://", "");
    ownersShell = system.start("sh", [], { cwd: project });
    const ownersOtherShell = system.start("sh", [], { cwd: project });
    const file = newFile();
    ownersShell.write(`systemd-run --user --quiet --collect sh -c '${command(file)}'\n`);
    beforeAnyAgent = await contentsOf(file);
    await new Promise((resolve) => setTimeout(resolve, 30)); // a kernel tick older than any agent
    agent = system.start(process.execPath, [bin, "run", "agents/agent", "--", ...agentCommand], { cwd: project });
    expect(await agent.line()).toMatch(/^up /);
    if (!canSandbox) return;
    const launch = [process.execPath, bin, "run", "--sandbox", "agents/other", "--", ...agentCommand, "other"];
    sandboxed = ownersOtherShell;
    sandboxed.write(`exec ${launch.join(" ")}\n`);
    expect(await sandboxed.line()).toMatch(/^up /);
  }, 60_000);
  afterAll(async () => {
    await system?.end();
  });

  /** What `who` gets for Python `code`: its `value`, or the error. */
  async function tries(who: Running, code: string): Promise<unknown> {
    who.write(`${JSON.stringify(code)}\n`);
    const { value, error } = JSON.parse(await who.line()) as { value?: unknown; error?: string };
    return error ?? value;
  }
  const runs = (...argv: readonly string[]): string =>
    `import os, subprocess
environment = {**os.environ, "XDG_RUNTIME_DIR": ${JSON.stringify(system.runtimeDirectory)}}
done = subprocess.run(${JSON.stringify(argv)}, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
value = [done.returncode, done.stdout + done.stderr]`;
  const told = async (question: string): Promise<string> => {
    ownersShell.write(`${question}\n`);
    return await ownersShell.line();
  };

  it("refuses what the user's manager starts for an agent (systemd-run --user): as service, scope, timer, unit file, orphan; the owner it does not", async () => {
    expect(beforeAnyAgent).toBe("200");
    expect(await told(`${python} ${ask} ${control}`)).toBe("200");
    const systemdRun = ["systemd-run", "--user", "--quiet", "--collect"];
    const ways: readonly ((shell: string) => readonly string[])[] = [
      (shell) => [...systemdRun, "sh", "-c", shell],
      (shell) => [...systemdRun, "--pipe", "--wait", "sh", "-c", shell],
      // A scope takes only what is below that manager already.
      (shell) => [...systemdRun, "--pipe", "--wait", ...systemdRun, "--scope", "sh", "-c", shell],
      (shell) => [...systemdRun, "--on-active=1ms", "--timer-property=AccuracySec=1ms", "sh", "-c", shell],
      (shell) => [...systemdRun, "--property=KillMode=none", "--property=Type=forking", "sh", "-c", `(${shell}) &`],
    ];
    for (const way of ways) {
      const file = newFile();
      const argv = way(command(file));
      await tries(agent, runs(...argv));
      expect(await contentsOf(file), argv.join(" ")).toBe("403");
    }
    const file = newFile();
    const unit = `[Service]\nExecStart=/bin/sh -c "${command(file)}"\n`;
    const folder = join(system.runtimeDirectory, "systemd/user");
    await tries(
      agent,
      `import os\nos.makedirs(${JSON.stringify(folder)}, exist_ok=True)\nopen(${JSON.stringify(join(folder, "liar.service"))}, "w").write(${JSON.stringify(unit)})`,
    );
    expect(await tries(agent, runs("systemctl", "--user", "daemon-reload"))).toEqual([0, ""]);
    expect(await tries(agent, runs("systemctl", "--user", "start", "liar.service"))).toEqual([0, ""]);
    expect(await contentsOf(file)).toBe("403");
  });

  it("gets around by a service that the user's dbus-daemon starts, which is older than any agent", async () => {
    const file = newFile();
    const script = join(project, "activated.sh");
    const service = `[D-BUS Service]\nName=local.Activated\nExec=/bin/sh ${script}\n`;
    const folder = join(system.runtimeDirectory, "dbus-1/services");
    const bus = [
      "busctl",
      "--user",
      "call",
      "--expect-reply=no",
      "org.freedesktop.DBus",
      "/org/freedesktop/DBus",
      "org.freedesktop.DBus",
    ];
    const write = (to: string, text: string) => `open(${JSON.stringify(to)}, "w").write(${JSON.stringify(text)})`;
    await tries(
      agent,
      `import os\nos.makedirs(${JSON.stringify(folder)}, exist_ok=True)\n${write(script, `${command(file)}\n`)}\n${write(join(folder, "local.Activated.service"), service)}`,
    );
    expect(await tries(agent, runs(...bus, "ReloadConfig"))).toEqual([0, ""]);
    await tries(agent, runs(...bus, "StartServiceByName", "su", "local.Activated", "0"));
    // What it gains: the owner's word.
    expect(await contentsOf(file)).toBe("200");
  });

  it("finds neither the user's manager nor its bus in the sandbox", async () => {
    if (sandboxed === undefined) return;
    const connects = (path: string) =>
      `import socket\nsocket.socket(socket.AF_UNIX).connect(${JSON.stringify(path)})\nvalue = "connected"`;
    for (const name of ["bus", "systemd/private", "systemd/notify"]) {
      const path = join(system.runtimeDirectory, name);
      expect(await tries(sandboxed, connects(path)), name).toMatch(/^FileNotFoundError/);
    }
    for (const name of ["bus", "systemd/private"]) {
      expect(await tries(agent, connects(join(system.runtimeDirectory, name))), name).toBe("connected");
    }
    const file = newFile();
    const [code, said] = (await tries(
      sandboxed,
      runs("systemd-run", "--user", "--quiet", "--collect", "sh", "-c", command(file)),
    )) as [number, string];
    expect([code, said]).toEqual([1, expect.stringContaining("Failed to connect to bus")]);
    expect(existsSync(file)).toBe(false);
  });

  it("names units as systemd itself does, and the unit that an agent starts under a name has what asks for that name only", async () => {
    const sleeper = ["sleep", "600"];
    const units: readonly (readonly string[])[] = [
      ["--unit=planner.service", ...sleeper],
      ["--unit=deep.service", "--slice=work-deep.slice", ...sleeper],
      ["--unit=one@a-b\\x2dc.service", ...sleeper],
      // Names that systemd must write in another way, for the kernel has files of that name.
      ["--unit=cgroup.procs.service", ...sleeper],
      ["--unit=_under.service", ...sleeper],
      // Who owns a group below may give it any name.
      ["--unit=owner.service", "--property=Delegate=yes", python ?? "", join(project, "agents", "below.py")],
    ];
    const seen: Record<string, unknown> = {};
    for (const [name = "", ...rest] of units) {
      const unit = name.replace("--unit=", "");
      const started = await tries(agent, runs("systemd-run", "--user", "--quiet", "--collect", name, ...rest));
      expect(started, name).toEqual([0, ""]);
      const pid = await system.asUser("systemctl", "--user", "show", "--property=MainPID", "--value", unit);
      await expect
        .poll(() => system.asRoot("cat", `/proc/${pid}/comm`), { timeout: 20_000, message: unit })
        .toBe("sleep");
      const { selectors, identities } = await attested(pid);
      expect(selectors, unit).toContain(`agentid:systemd_user_id:${await theManagersName("--user", pid)}`);
      expect(selectors, unit).toContain(`systemd:id:${await theManagersName("--system", pid)}`);
      seen[unit] = identities.map(({ spiffeId }) => spiffeId);
    }
    expect(seen).toEqual({
      "planner.service": ["spiffe://shop.local/agents/planner"],
      "deep.service": [],
      "one@a-b\\x2dc.service": [],
      "cgroup.procs.service": [],
      "_under.service": [],
      "owner.service": [],
    });
  });

  it("gives what asks for a unit of the system to what root starts in it, and to nothing that an agent can start or move", async () => {
    const unit = `[Unit]
DefaultDependencies=no
[Service]
User=${ordinaryUser?.uid}
Slice=work-night.slice
ExecStart=sleep 600
`;
    const starts = `cat > /run/systemd/system/nightly.service && systemctl daemon-reload && systemctl start nightly.service`;
    expect(await system.asRoot("sh", "-c", `printf %s '${unit}' | { ${starts}; }`)).toBe("");
    const pid = await system.asRoot("systemctl", "show", "--property=MainPID", "--value", "nightly.service");
    const { selectors, identities } = await attested(pid);
    expect(await theManagersName("--system", pid)).toBe("nightly.service");
    expect(selectors).toContain("systemd:id:nightly.service");
    expect(selectors.filter((selector) => selector.startsWith("agentid:systemd_user_id"))).toEqual([]);
    expect(identities.map(({ spiffeId }) => spiffeId)).toEqual(["spiffe://shop.local/agents/nightly"]);

    // A unit of that name below the user's own manager is another one.
    await tries(agent, runs("systemd-run", "--user", "--quiet", "--unit=nightly.service", "sleep", "600"));
    const own = await system.asUser("systemctl", "--user", "show", "--property=MainPID", "--value", "nightly.service");
    expect((await attested(own)).identities).toEqual([]);
    expect(await tries(agent, runs("systemd-run", "--quiet", "--unit=mine.service", "sleep", "600"))).toEqual([
      1,
      expect.stringContaining("Failed to"),
    ]);
    const enter = `import os\nopen("/sys/fs/cgroup/work.slice/work-night.slice/nightly.service/cgroup.procs", "w").write(str(os.getpid()))`;
    expect(await tries(agent, enter)).toMatch(/^PermissionError/);
  });

  /** The unit of a process, as the manager answers. */
  async function theManagersName(manager: "--user" | "--system", pid: string): Promise<string> {
    const ask = manager === "--user" ? system.asUser : system.asRoot;
    const status = await ask("systemctl", manager, "status", "--no-pager", "--lines=0", pid);
    return /^\S+ (\S+)/.exec(status)?.[1] ?? status;
  }
  async function attested(pid: string): Promise<{ selectors: string[]; identities: { spiffeId: string }[] }> {
    const file = newFile();
    await told(`${process.execPath} ${bin} attest ${pid} --json > ${file}; echo done`);
    return JSON.parse(readFileSync(file, "utf8"));
  }
});
