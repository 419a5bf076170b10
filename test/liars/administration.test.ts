import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  agentid,
  bin,
  makeProject,
  ordinaryUser,
  python,
  type RunningDev,
  run,
  startDev,
  startProgram,
} from "../e2e/agentid.js";
import { AGENT, ASK } from "./administering.js";

/*
 * An agent that wants to administer (D25), with real processes: what refuses it, what it gets around with and to what gain, and the same from inside
 * the sandbox. The control of every attempt is the owner, or the same attempt outside.
 */

const has = (command: string): boolean => spawnSync("which", [command]).status === 0;
const canSandbox =
  existsSync(join(bin, "..", "..", "src", "sandbox")) &&
  spawnSync("bwrap", ["--unshare-user", "--unshare-net", "--unshare-pid", "--ro-bind", "/", "/", "true"], {
    ...ordinaryUser,
    stdio: "ignore",
  }).status === 0;
/** Whether a process of a user may attach to another one that it did not start. */
const YAMA = "/proc/sys/kernel/yama/ptrace_scope";
const attaches = process.arch === "x64" && (!existsSync(YAMA) || readFileSync(YAMA, "utf8").trim() === "0");
for (const [what, there] of Object.entries({
  tmux: has("tmux"),
  "right to attach on x64": attaches,
  sandbox: canSandbox,
})) {
  if (!there) process.stderr.write(`SKIPPED: no ${what} here\n`);
}

/** Lets a process that waits in a system call execute something else, as a debugger could (x64). */
const PTRACED = `import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
ATTACH, DETACH, GETREGS, SETREGS = 16, 17, 12, 13
RAX, RDX, RSI, RDI, ORIG_RAX, RIP, RSP = 10, 12, 13, 14, 15, 16, 19
def ptrace(request, pid, data=None):
    if libc.ptrace(request, pid, None, data) == -1: raise OSError(ctypes.get_errno(), "ptrace")
def execute(pid, argv):
    ptrace(ATTACH, pid)
    os.waitpid(pid, 0x40000000)
    registers = (ctypes.c_uint64 * 27)()
    ptrace(GETREGS, pid, ctypes.addressof(registers))
    base = (registers[RSP] - 65536) & ~15
    texts = [word.encode() + b"\\0" for word in argv]
    places = [base + sum(map(len, texts[:each])) for each in range(len(texts))]
    pointers = (base + sum(map(len, texts)) + 15) & ~15
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(base)
        memory.write(b"".join(texts))
        memory.seek(pointers)
        memory.write(struct.pack(f"{len(places) + 1}Q", *places, 0))
    registers[RAX], registers[RDI], registers[RSI], registers[RDX] = 59, base, pointers, 0
    registers[ORIG_RAX] = 0xFFFFFFFFFFFFFFFF
    registers[RIP] -= 2
    ptrace(SETREGS, pid, ctypes.addressof(registers))
    ptrace(DETACH, pid)
`;

const agentCommand = [python ?? "python3", "agents/agent.py"];
/** Asks for the launch itself, with a connection to the control socket that it opened before and keeps. */
const KEEPER = `import json, os, sys
import ask
control = ask.connected(sys.argv[1])
print("before", ask.answer(control), flush=True)
os.set_inheritable(control.fileno(), True)
body = json.dumps({"name": "agents/agent", "argv": ${JSON.stringify(agentCommand)}, "workingDirectory": os.getcwd(), "adopter": 1}).encode()
print("launch", ask.answer(ask.connected(sys.argv[1]), "POST", "/v1/launch", body), control.fileno(), flush=True)
os.execv(${JSON.stringify(agentCommand[0])}, ${JSON.stringify(agentCommand)})
`;

const YAML = `trustDomain: shop.local
identities:
  agents/agent: { launch: ${JSON.stringify(agentCommand)} }
  agents/other: { launch: ${JSON.stringify([...agentCommand, "other"])} }
reload: confirm
`;

describe.skipIf(python === undefined || process.platform !== "linux")("an agent that wants to administer", () => {
  const project = makeProject({
    "agentid.yaml": YAML,
    "agents/ask.py": ASK,
    "agents/agent.py": AGENT,
    "agents/keeper.py": KEEPER,
    "agents/ptraced.py": PTRACED,
  });
  const tmuxSocket = join(project, "tmux.sock");
  const ask = join(project, "agents", "ask.py");
  let dev: RunningDev;
  let ownersShell: ReturnType<typeof startProgram>;
  let ownersOtherShell: ReturnType<typeof startProgram>;
  let agent: ReturnType<typeof startProgram>;
  let sandboxed: ReturnType<typeof startProgram> | undefined;
  let control: string;

  beforeAll(async () => {
    dev = await startDev(project);
    control = dev.ready.control.replace("unix://", "");
    // What the owner had open before the first agent.
    ownersShell = startProgram("sh", [], { cwd: project });
    ownersOtherShell = startProgram("sh", [], { cwd: project });
    if (has("tmux")) {
      const started = await run("tmux", ["-S", tmuxSocket, "-f", "/dev/null", "new-session", "-d", "sh"], {
        cwd: project,
      });
      expect(started).toMatchObject({ code: 0 });
    }
    await new Promise((resolve) => setTimeout(resolve, 30)); // a kernel tick older than any agent
    agent = startProgram(process.execPath, [bin, "run", "agents/agent", "--", ...agentCommand], { cwd: project });
    expect(await agent.line()).toMatch(/^up /);
    if (canSandbox) {
      const args = [bin, "run", "--sandbox", "agents/other", "--", ...agentCommand, "other"];
      sandboxed = startProgram(process.execPath, args, { cwd: project });
      expect(await sandboxed.line()).toMatch(/^up /);
    }
  });
  afterAll(async () => {
    if (has("tmux")) await run("tmux", ["-S", tmuxSocket, "kill-server"], { cwd: project });
    for (const each of [agent, sandboxed, ownersShell, ownersOtherShell]) await each?.end();
    await dev?.stop();
  });

  /** What `who` gets for Python `code`: its `value`, or the error. */
  async function tries(who: ReturnType<typeof startProgram>, code: string): Promise<unknown> {
    who.write(`${JSON.stringify(code)}\n`);
    const { value, error } = JSON.parse(await who.line()) as { value?: unknown; error?: string };
    return error ?? value;
  }
  let files = 0;
  const newFile = (): string => join(project, `answer-${files++}`);
  async function contentsOf(file: string): Promise<string> {
    await expect.poll(() => (existsSync(file) ? readFileSync(file, "utf8") : ""), { timeout: 20_000 }).toMatch(/\n$/);
    return readFileSync(file, "utf8").trim();
  }
  const command = (file: string): string => `${python} ${ask} ${control} > ${file}`;
  const shut = /FileNotFoundError|no server|failed|CalledProcessError|Error/;

  it("is refused itself, and so are its child, its shell, its session and its orphan; the owner is not", async () => {
    ownersShell.write(`${python} ${ask} ${control}\n`);
    expect(await ownersShell.line()).toBe("200");
    expect(await tries(agent, `import ask\nvalue = ask.answer(ask.connected(${JSON.stringify(control)}))`)).toBe(403);
    const child = (how: string) =>
      `import subprocess\nvalue = subprocess.run(${how}, capture_output=True, text=True).stdout.strip()`;
    for (const how of [
      JSON.stringify([python, ask, control]),
      JSON.stringify(["sh", "-c", `${python} ${ask} ${control}; :`]),
      JSON.stringify(["setsid", "-w", "sh", "-c", `${python} ${ask} ${control}; :`]),
      JSON.stringify(["bash", "-ic", `${python} ${ask} ${control}; :`]),
    ]) {
      expect(await tries(agent, child(how)), how).toBe("403");
    }
    for (const orphan of [
      "(FILE &)",
      "(setsid sh -c 'FILE' &)",
      "setsid -f sh -c 'FILE'",
      "nohup sh -c 'FILE' >/dev/null 2>&1 &",
    ]) {
      const file = newFile();
      await tries(
        agent,
        `import subprocess\nsubprocess.run(["sh", "-c", ${JSON.stringify(orphan.replace("FILE", command(file)))}])`,
      );
      expect(await contentsOf(file), orphan).toBe("403");
    }
  });

  it("is refused on a connection that it opened before it was an agent", async () => {
    const keeper = startProgram(python ?? "", ["agents/keeper.py", control], { cwd: project });
    try {
      expect(await keeper.line()).toBe("before 200");
      const [word, status, descriptor] = (await keeper.line()).split(" ");
      expect([word, status]).toEqual(["launch", "200"]);
      expect(await keeper.line()).toMatch(/^up /);
      const asked = `import ask, socket\nheld = socket.socket(fileno=${descriptor})\nheld.settimeout(20)\nvalue = ask.answer(held)`;
      expect(await tries(keeper, asked)).toBe(403);
    } finally {
      await keeper.end();
    }
  });

  it.runIf(has("tmux"))(
    "gets around by typing into the owner's terminal (tmux send-keys), and not from the sandbox",
    async () => {
      const typed = (file: string) =>
        `import subprocess\nsubprocess.run(["tmux", "-S", ${JSON.stringify(tmuxSocket)}, "send-keys", ${JSON.stringify(command(file))}, "Enter"], check=True)`;
      const opened = (file: string) =>
        `import subprocess\nsubprocess.run(["tmux", "-S", ${JSON.stringify(tmuxSocket)}, "new-window", "-d", ${JSON.stringify(command(file))}], check=True)`;
      for (const way of [typed, opened]) {
        const file = newFile();
        expect(await tries(agent, way(file))).toBeNull();
        // What it gains: the owner's word.
        expect(await contentsOf(file)).toBe("200");
        if (sandboxed === undefined) continue;
        const other = newFile();
        expect(await tries(sandboxed, way(other))).toMatch(shut);
        expect(existsSync(other)).toBe(false);
      }
    },
  );

  it.runIf(attaches)("gets around by attaching to the owner's shell (ptrace), and not from the sandbox", async () => {
    const attach = (file: string) =>
      `import ptraced\nptraced.execute(${ownersOtherShell.pid}, ["/bin/sh", "-c", ${JSON.stringify(command(file))}])`;
    if (sandboxed !== undefined) {
      const file = newFile();
      expect(await tries(sandboxed, attach(file))).toMatch(shut);
      expect(existsSync(file)).toBe(false);
    }
    const file = newFile();
    expect(await tries(agent, attach(file))).toBeNull();
    expect(await contentsOf(file)).toBe("200");
  });

  it("gains nothing by editing what decides: it waits as WIDENED, and the agent may not accept it; in the sandbox the files are read-only", async () => {
    const lock = readFileSync(join(project, "agentid.lock"), "utf8");
    const edits: readonly [file: string, text: string][] = [
      [
        "agentid.lock",
        lock.replaceAll(/"([0-9a-f]{64})"|\b([0-9a-f]{64})\b/g, (digest) => digest.replaceAll(/[0-9]/g, "b")),
      ],
      [
        "agentid.yaml",
        YAML.replace("identities:", `identities:\n  agents/mine: { uid: ${ordinaryUser?.uid ?? process.getuid?.()} }`),
      ],
    ];
    for (const [name, text] of edits) {
      const file = join(project, name);
      const before = readFileSync(file, "utf8");
      const write = `open(${JSON.stringify(file)}, "w").write(${JSON.stringify(text)}) and None`;
      if (sandboxed !== undefined) expect(await tries(sandboxed, write)).toMatch(/Read-only file system/);
      const seen = dev.events.length;
      expect(await tries(agent, write)).toBeNull();
      expect(await dev.until((event) => event.event === "reload" && event.outcome === "waiting", seen)).toMatchObject({
        widened: true,
      });
      const accept = `import ask\nvalue = ask.answer(ask.connected(${JSON.stringify(control)}), "POST", "/v1/reload/accept", b"{}")`;
      expect(await tries(agent, accept)).toBe(403);
      // The control: the owner may, or may refuse it.
      expect((await agentid(["reload", "refuse"], { cwd: project })).code).toBe(0);
      await tries(agent, `open(${JSON.stringify(file)}, "w").write(${JSON.stringify(before)}) and None`);
    }
  });

  it("reaches no control socket from inside the sandbox, in whatever shape", async () => {
    if (sandboxed === undefined) return;
    expect(await tries(sandboxed, `import ask\nvalue = ask.answer(ask.connected(${JSON.stringify(control)}))`)).toMatch(
      /FileNotFoundError/,
    );
    const file = newFile();
    await tries(
      sandboxed,
      `import subprocess\nsubprocess.run(["sh", "-c", ${JSON.stringify(`(setsid sh -c '${command(file)}' &)`)}])`,
    );
    expect(existsSync(file)).toBe(false);
  });
});
