import { spawn as spawnProcess } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { spawn as spawnTerminal } from "@lydell/node-pty";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import {
  agentid,
  bin,
  type Finished,
  giveTo,
  makeProject,
  ordinaryUser,
  python,
  type RunningDev,
  run,
  runtimeBase,
  startDev,
  startProgram,
} from "./agentid.js";
import {
  canSandbox,
  inside,
  makeSandboxedProject,
  type Prober,
  type ProberOptions,
  proberCommand,
  recorded,
} from "./sandboxed.js";

// Each launch starts two Nodes, and most tests several.
vi.setConfig({ testTimeout: 90_000 });

describe.skipIf(!canSandbox)("agentid run --sandbox", () => {
  const { project, home } = makeSandboxedProject();
  let dev: RunningDev;
  const programs: Pick<Prober, "end">[] = [];
  const options: ProberOptions = { project, home };

  beforeAll(async () => {
    dev = await startDev(project, [], { HOME: home });
  });
  afterAll(async () => {
    for (const program of programs) await program.end();
    await dev?.stop();
  });

  async function launch(env: NodeJS.ProcessEnv = {}): Promise<Prober> {
    const agent = await inside({ ...options, env });
    programs.push(agent);
    return agent;
  }
  const runOnce = (args: readonly string[], input = ""): Promise<Finished> =>
    run(process.execPath, [bin, "run", ...args], { cwd: project, env: { HOME: home }, input });
  const attempt = (code: string): string => `${Buffer.from(code).toString("base64")}\n`;
  const attested = async (pid: number) =>
    JSON.parse((await agentid(["attest", String(pid), "--json"], { cwd: project })).stdout) as {
      identities: { name: string; evidence: string }[];
    };

  it("an entry that asks for a sandbox is not launched without one; one that does not may be launched either way", async () => {
    const without = await runOnce(["agents/prober", "--", ...proberCommand]);
    expect(without.code).toBe(3);
    expect(without.stderr).toContain("runs in a sandbox only");
    expect(without.stderr).toContain("agentid run --sandbox agents/prober -- ");
    expect((await runOnce(["agents/prober", "--sandbox", "--", ...proberCommand])).code).toBe(0);
    for (const args of [["agents/free"], ["--sandbox", "agents/free"]]) {
      const finished = await runOnce([...args, "--", ...proberCommand]);
      expect(finished.stdout).toMatch(/^up \d+\n$/);
      expect(finished.code).toBe(0);
    }
  });

  it("the identity is that of exactly the process that was executed inside, from the pinned program on, until its next", async () => {
    const seen = dev.events.length;
    const agent = await launch();
    const started = await dev.until((event) => event.event === "process" && event.change === "launched", seen);
    const pid = "pid" in started ? (started.pid ?? 0) : 0;
    expect(pid).not.toBe(agent.pid);
    expect((await attested(pid)).identities).toEqual([
      { name: "agents/prober", spiffeId: "spiffe://shop.local/agents/prober", evidence: "launch", restsOn: ["launch"] },
    ]);
    // Neither the keeper outside nor what stands between has it.
    expect((await attested(agent.pid)).identities).toEqual([]);
    agent.write(attempt(`import os\nos.execv("/bin/cat", ["/bin/cat"])`));
    await dev.until((event) => event.event === "process" && event.change === "ended" && event.pid === pid, seen);
    expect((await attested(pid)).identities).toEqual([]);
    expect(JSON.stringify((await recorded("launch.granted", project)).at(-1))).toContain(
      `"sandbox":{"read":[],"write":[${JSON.stringify(join(project, "out"))}]}`,
    );
  });

  it("two sandboxes are two networks: what listens in one is not in the other", async () => {
    const [one, other] = [await launch(), await launch()];
    const listen = `import socket, builtins\nbuiltins.kept = socket.create_server(("127.0.0.1", 7777))`;
    const connect = `import socket\nsocket.create_connection(("127.0.0.1", 7777), 5).close()`;
    expect(await one.attempt(listen)).toMatchObject({ ok: true });
    expect(await one.attempt(connect)).toMatchObject({ ok: true });
    expect(await other.attempt(connect)).toMatchObject({
      ok: false,
      error: expect.stringContaining("ConnectionRefused"),
    });
  });

  it("passes input, output and exit code through; a signal's death is 128 and its number", async () => {
    const ended = (code: string) => runOnce(["--sandbox", "agents/prober", "--", ...proberCommand], attempt(code));
    expect(await ended("import os\nos._exit(42)")).toMatchObject({ code: 42, signal: null });
    expect((await ended("import os\nos.kill(os.getpid(), 9)")).code).toBe(137);
    const printed = await ended(`import sys\nprint("to the error output", file=sys.stderr)`);
    expect(printed.stdout).toMatch(/^up 2\n\{"ok": true, "value": null\}\n$/);
    expect(printed.stderr).toBe("to the error output\n");
  });

  it("hands on a signal that the keeper is sent, and ends with the keeper", async () => {
    const agent = await launch();
    const closed = once(agent.child, "close");
    agent.child.kill("SIGTERM");
    expect(await agent.line()).toBe("terminated");
    expect((await closed)[0]).toBe(5);
    const orphan = await launch();
    const seen = dev.events.length;
    orphan.child.kill("SIGKILL");
    await dev.until((event) => event.event === "process" && event.change === "ended", seen);
  });

  it("in a terminal Ctrl-C is the agent's, and Ctrl-Z and fg work", async () => {
    const script = `trap 'echo caught; exit 9' INT; trap 'echo "again $((40+2))"' CONT; echo "ready $((40+2))"; while :; do sleep 0.05; done`;
    const shell = makeProject({
      "agentid.yaml": `trustDomain: shop.local\nidentities:\n  agents/shell:\n    launch: { command: [/bin/bash, loop.sh], sandbox: true }\n`,
      "loop.sh": script,
    });
    const own = await startDev(shell, [], { HOME: home });
    const PATH = `${dirname(process.execPath)}:${process.env.PATH}`;
    const pty = spawnTerminal("/bin/bash", ["--norc", "--noprofile", "-i"], {
      cwd: shell,
      env: { PATH, HOME: home, TMPDIR: runtimeBase(), PS1: "prompt> ", TERM: "dumb", NO_COLOR: "1" },
      ...(ordinaryUser ?? {}),
    });
    let screen = "";
    let wake = () => {};
    pty.onData((data) => {
      screen += data;
      wake();
    });
    const shows = async (text: string) => {
      const deadline = Date.now() + 60_000;
      while (!screen.includes(text)) {
        if (Date.now() > deadline) throw new Error(`no ${text} in ${screen}`);
        await new Promise<void>((resolve) => {
          wake = resolve;
          setTimeout(resolve, 100);
        });
      }
    };
    try {
      pty.write(`'${process.execPath}' '${bin}' run --sandbox shell -- /bin/bash loop.sh\r`);
      await shows("ready 42");
      pty.write("\x1a");
      await shows("Stopped");
      screen = "";
      pty.write("fg\r");
      // The shell names the job before it has given it the terminal, and wakes it after that.
      await shows("again 42");
      pty.write("\x03");
      await shows("caught");
      pty.write('echo "code $?"\r');
      await shows("code 9");
    } finally {
      pty.kill("SIGKILL");
      await own.stop();
    }
  });

  const descendants = (pid: number): number[] =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1")
      .split(" ")
      .filter((child) => child !== "")
      .flatMap((child) => [Number(child), ...descendants(Number(child))]);
  const runs = (pid: number): boolean => {
    try {
      return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
    } catch {
      return false;
    }
  };

  it("the exit code is the agent's when Ctrl-C has ended it before its keeper hears of that", async () => {
    const shell = makeProject({
      "agentid.yaml": `trustDomain: shop.local\nidentities:\n  agents/shell:\n    launch: { command: [/bin/bash, loop.sh], sandbox: true }\n`,
      "loop.sh": `trap 'echo caught; exit 9' INT; echo "ready $((40+2))"; while :; do sleep 0.05; done`,
    });
    const own = await startDev(shell, [], { HOME: home });
    const pty = spawnTerminal(process.execPath, [bin, "run", "--sandbox", "shell", "--", "/bin/bash", "loop.sh"], {
      cwd: shell,
      env: { ...process.env, HOME: home, TMPDIR: runtimeBase(), TERM: "dumb", NO_COLOR: "1" },
      ...(ordinaryUser ?? {}),
    });
    let screen = "";
    pty.onData((data) => {
      screen += data;
    });
    const ended = new Promise<number>((resolve) => pty.onExit(({ exitCode }) => resolve(exitCode)));
    try {
      await vi.waitFor(() => expect(screen).toContain("ready 42"), 60_000);
      const inside = descendants(pty.pid);
      expect(inside.length).toBeGreaterThan(1);
      process.kill(pty.pid, "SIGSTOP");
      pty.write("\x03");
      await vi.waitFor(() => expect(inside.filter((pid) => runs(pid))).toEqual([]), 60_000);
      process.kill(pty.pid, "SIGCONT");
      expect([await ended, screen.includes("caught")]).toEqual([9, true]);
    } finally {
      pty.kill("SIGKILL");
      await own.stop();
    }
  });

  it("keeps nothing that was inherited: no descriptor, no folder as input, no variable that leads out", async () => {
    const openDescriptors = async (args: readonly string[]): Promise<unknown> => {
      const child = spawnProcess(process.execPath, [bin, "run", ...args, "--", ...proberCommand], {
        cwd: project,
        env: { ...process.env, HOME: home, TMPDIR: runtimeBase() },
        ...ordinaryUser,
        stdio: ["pipe", "pipe", "inherit", openSync(project, "r"), "pipe"],
      });
      child.stdin?.end(
        attempt(`import os\nvalue = [fd for fd in range(3, 64) if os.path.exists(f"/proc/self/fd/{fd}")]`),
      );
      let out = "";
      child.stdout?.on("data", (chunk: Buffer) => {
        out += chunk.toString();
      });
      await once(child, "close");
      return (JSON.parse(out.split("\n")[1] ?? "") as { value: unknown }).value;
    };
    expect(await openDescriptors(["agents/free"])).toEqual([3, 4]);
    expect(await openDescriptors(["--sandbox", "agents/free"])).toEqual([]);

    const folder = spawnProcess(process.execPath, [bin, "run", "--sandbox", "agents/prober", "--", ...proberCommand], {
      cwd: project,
      env: { ...process.env, HOME: home, TMPDIR: runtimeBase() },
      ...ordinaryUser,
      stdio: [openSync("/", "r"), "ignore", "pipe"],
    });
    let why = "";
    folder.stderr?.on("data", (chunk: Buffer) => {
      why += chunk.toString();
    });
    const [code] = await once(folder, "close");
    expect(code).toBe(1);
    expect(why).toContain("descriptor 0 is a folder");

    const leading = {
      ...{
        SSH_AUTH_SOCK: "/x",
        DBUS_SESSION_BUS_ADDRESS: "unix:path=/x",
        TMUX: "/x,1,0",
        DISPLAY: ":0",
        DOCKER_HOST: "unix:///x",
      },
      ...{
        AWS_PROFILE: "p",
        GOOGLE_APPLICATION_CREDENTIALS: "/x",
        OPENAI_API_KEY: "k",
        HTTPS_PROXY: "http://u:p@h",
        KUBECONFIG: "/x",
      },
      ...{ PYTHONPATH: "/x", XDG_RUNTIME_DIR: "/x", AGENTID_CONTROL: dev.env.AGENTID_CONTROL },
    };
    const agent = await launch({ ...leading, KEPT_TOKEN: "kept", PLAIN: "plain" });
    const found = (await agent.attempt("import os\nvalue = dict(os.environ)")).value as Record<string, string>;
    expect(Object.keys(leading).filter((name) => name in found)).toEqual([]);
    expect(found).toMatchObject({
      KEPT_TOKEN: "kept",
      PLAIN: "plain",
      TMPDIR: "/tmp",
      HOME: home,
      SPIFFE_ENDPOINT_SOCKET: "unix:///run/agentid/workload.sock",
      AGENTID_URL_INVOICES: dev.env.AGENTID_URL_INVOICES,
    });
  });

  it("a changed script is refused at the door, on record, with both digests", async () => {
    const other = makeSandboxedProject();
    const own = await startDev(other.project, [], { HOME: other.home });
    try {
      writeFileSync(join(other.project, "agents/prober.py"), "print('changed')");
      const finished = await run(process.execPath, [bin, "run", "--sandbox", "agents/prober", "--", ...proberCommand], {
        cwd: other.project,
        env: { HOME: other.home },
      });
      expect(finished.code).toBe(3);
      expect(finished.stderr).toMatch(/agents\/prober.py: pinned [0-9a-f]{64}, is now [0-9a-f]{64}/);
    } finally {
      await own.stop();
    }
  });
});

describe.skipIf(!canSandbox)("what a sandbox never opens", () => {
  const elsewhere = join(runtimeBase(), "w-elsewhere");
  const refused: readonly [why: string, sandbox: string, expected: RegExp][] = [
    ["the project itself", "{ write: [.] }", /holds .*agentid\.(yaml|lock)|holds .*\.agentid/],
    ["a link", "{ write: [linked] }", /symbolic link/],
  ];
  it.each(refused)("%s", async (_, sandbox, expected) => {
    const { project, home } = makeSandboxedProject({ sandbox });
    mkdirSync(elsewhere, { recursive: true });
    symlinkSync(elsewhere, join(project, "linked"));
    const dev = await startDev(project, [], { HOME: home });
    try {
      const finished = await run(process.execPath, [bin, "run", "--sandbox", "agents/prober", "--", ...proberCommand], {
        cwd: project,
        env: { HOME: home },
      });
      expect(finished.code).toBe(3);
      expect(finished.stderr).toMatch(expected);
    } finally {
      await dev.stop();
    }
  });

  it("the home, without its secrets, where an entry may read it", async () => {
    const { project, home, secrets } = makeSandboxedProject({
      sandbox: (home) => `{ read: [${JSON.stringify(home)}] }`,
    });
    writeFileSync(join(home, "notes.txt"), "notes");
    giveTo(home);
    const dev = await startDev(project, [], { HOME: home });
    const agent = await inside({ project, home });
    try {
      expect(await agent.attempt(`value = open(${JSON.stringify(join(home, "notes.txt"))}).read()`)).toMatchObject({
        ok: true,
        value: "notes",
      });
      for (const path of secrets) {
        expect(await agent.attempt(`value = open(${JSON.stringify(path)}).read()`)).toMatchObject({ ok: false });
      }
    } finally {
      await agent.end();
      await dev.stop();
    }
  });
});

describe.skipIf(!canSandbox)("an interpreter that is not the system's, and the Workload API", () => {
  const FETCH = `
import { connect } from "node:http2";
const session = connect("http://localhost", { createConnection: () => net.connect(process.env.SPIFFE_ENDPOINT_SOCKET.replace("unix://", "")) });
import net from "node:net";
const stream = session.request({ ":method": "POST", ":path": "/SpiffeWorkloadAPI/FetchX509SVID", "content-type": "application/grpc", te: "trailers", "workload.spiffe.io": "true" });
stream.on("response", (headers) => { if (headers["grpc-status"]) { console.log("status", headers["grpc-status"]); process.exit(); } });
stream.on("data", (data) => { console.log(/spiffe:..shop.local.agents.[a-z]+/.exec(data.toString("latin1"))?.[0]); process.exit(); });
stream.on("error", (error) => { console.log(error.message); process.exit(); });
stream.end(Buffer.alloc(5));
`;
  it("runs, and gets its SVID over the one socket that is inside", async () => {
    const node = realpathSync(process.execPath);
    const project = makeProject({
      "agentid.yaml": `trustDomain: shop.local\nidentities:\n  agents/walker:\n    launch: { command: [${JSON.stringify(node)}, walker.mjs], sandbox: true }
  agents/execer:
    launch: { command: [${JSON.stringify(node)}, exec.mjs], sandbox: true }
  agents/anybody:
    uid: ${ordinaryUser?.uid ?? process.getuid?.()}\n`,
      "walker.mjs": `${FETCH}`,
      "exec.mjs": `process.execve(process.execPath, [process.execPath, "walker.mjs"], process.env);`,
    });
    const dev = await startDev(project);
    try {
      const walker = await run(process.execPath, [bin, "run", "--sandbox", "walker", "--", node, "walker.mjs"], {
        cwd: project,
      });
      expect(walker.stdout.trim()).toBe("spiffe://shop.local/agents/walker");
      // Whoever runs as this user outside has an identity by facts; inside, a program that the agent executes has none.
      const outside = await run(node, ["walker.mjs"], { cwd: project, env: dev.env });
      expect(outside.stdout.trim()).toBe("spiffe://shop.local/agents/anybody");
      const execer = await run(process.execPath, [bin, "run", "--sandbox", "execer", "--", node, "exec.mjs"], {
        cwd: project,
      });
      expect(execer.stdout.trim()).toBe("status 7");
    } finally {
      await dev.stop();
    }
  });
});

describe.skipIf(!canSandbox)("commands that lead elsewhere", () => {
  it("a virtual environment is itself inside, and a script with a first line becomes its interpreter", async () => {
    const project = makeProject({
      "agentid.yaml": `trustDomain: shop.local
identities:
  agents/venv:
    launch: { command: [.venv/bin/python, who.py], sandbox: true }
  agents/script:
    launch: { command: [./who.sh, "an argument"], sandbox: true }
`,
      "who.py": "import sys\nprint(sys.prefix, sys.base_prefix != sys.prefix, flush=True)\nsys.stdin.readline()",
      "who.sh": '#!/bin/sh\necho "$0 $1"\n',
    });
    chmodSync(join(project, "who.sh"), 0o755);
    const made = await run(python ?? "", ["-m", "venv", "--without-pip", ".venv"], { cwd: project });
    expect(made.stderr).toBe("");
    const dev = await startDev(project);
    try {
      const launch = (name: string, ...command: string[]) =>
        [process.execPath, [bin, "run", "--sandbox", name, "--", ...command], { cwd: project }] as const;
      const agent = startProgram(...launch("venv", ".venv/bin/python", "who.py"));
      try {
        expect(await agent.line()).toBe(`${join(project, ".venv")} True`);
        await dev.until(
          (event) => event.event === "process" && event.change === "launched" && event.identity === "agents/venv",
        );
      } finally {
        await agent.end();
      }
      expect(await run(...launch("script", "./who.sh", "an argument"))).toMatchObject({
        stdout: "./who.sh an argument\n",
        code: 0,
      });
    } finally {
      await dev.stop();
    }
  });
});

describe.skipIf(!canSandbox)("where no sandbox can be made", () => {
  const node = realpathSync(process.execPath);
  const { project, home } = makeSandboxedProject({
    more: `  agents/node:\n    launch: { command: [${JSON.stringify(node)}, -e, "console.log(1)"], sandbox: true }`,
  });
  let dev: RunningDev;
  beforeAll(async () => {
    dev = await startDev(project, [], { HOME: home });
  });
  afterAll(() => dev?.stop());
  /** The launch on a machine that is changed by `args`. */
  const on = (...args: string[]) => {
    const launch = [node, bin, "run", "--sandbox", "agents/node", "--", node, "-e", "console.log(1)"];
    return run("bwrap", ["--dev-bind", "/", "/", ...args, "--", ...launch], { cwd: project, env: { HOME: home } });
  };

  it("says that namespaces are forbidden, and by what they may be", async () => {
    expect(await on()).toMatchObject({ code: 0, stdout: "1\n" });
    const forbidden = await on("--unshare-user", "--disable-userns");
    expect(forbidden).toMatchObject({ code: 1, stdout: "" });
    expect(forbidden.stderr).toMatch(
      /bubblewrap can make no sandbox here: bwrap: .*\n {2}user namespaces must be allowed/,
    );
  });

  it.skipIf(node.startsWith("/usr/"))("says that bubblewrap is missing, and how to get it", async () => {
    const missing = await on("--tmpfs", "/usr/bin", "--tmpfs", "/usr/local/bin");
    expect(missing).toMatchObject({ code: 1, stdout: "" });
    expect(missing.stderr).toContain("bubblewrap, which is not installed\n  apt install bubblewrap");
  });

  it("leaves no door open, neither after who came in nor after who did not", async () => {
    const runtime = dirname(dev.ready.control.replace("unix://", ""));
    const doors = () => readdirSync(runtime).filter((name) => name.startsWith("door-"));
    expect(readdirSync(runtime)).toContain("control.sock");
    await expect.poll(doors, { timeout: 10_000 }).toEqual([]);
  });
});
