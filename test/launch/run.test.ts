import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { spawn as spawnTerminal } from "@lydell/node-pty";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { atEnd, cleanUp, temporaryFolder } from "../attestation/processes.js";
import { type Built, build } from "./built.js";
import { type Answer, type ControlServer, controlServer } from "./control-server.js";
import { nodeOf } from "./nodes.js";

let built: Built;
beforeAll(() => {
  built = build();
});
afterAll(() => built.remove());
afterEach(cleanUp);

interface Ended {
  readonly pid: number | undefined;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly out: string;
  readonly err: string;
}

interface Options {
  readonly input?: string;
  readonly env?: Record<string, string>;
  readonly cwd?: string;
}

async function ended(
  command: string,
  args: readonly string[],
  { input = "", env = {}, cwd }: Options = {},
): Promise<Ended> {
  const child = spawn(command, args, { env: { ...process.env, ...env }, ...(cwd === undefined ? {} : { cwd }) });
  const exit = once(child, "close");
  child.stdin.on("error", () => undefined); // a command that does not read its input closes it
  child.stdin.end(input);
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [code, signal] = await exit;
  return { pid: child.pid, code, signal, out, err };
}

const refusal = {
  type: "about:blank",
  title: "refused",
  status: 403,
  code: "launch-refused",
  detail: "agents/billing.py is not what was pinned",
  hint: "agentid pin billing",
};

describe.each([22, 24, 26])("agentid run on Node %i", (major) => {
  const node = nodeOf(major);
  if (node === undefined) {
    test.skip(`Node ${major} is not to be had here: nothing of this was tested`, () => undefined);
    return;
  }

  const start = async (answer?: Answer): Promise<{ control: ControlServer; env: Record<string, string> }> => {
    const control = await controlServer(answer);
    return { control, env: { AGENTID_CONTROL: control.address } };
  };
  const run = async (argv: readonly string[], options: Options & { answer?: Answer } = {}): Promise<Ended> => {
    const { env } = await start(options.answer);
    return ended(node, [built.agentid, "run", "billing", "--", ...argv], {
      ...options,
      env: { ...env, ...options.env },
    });
  };
  /** Within a shell's command line, `agentid` is the command under test. */
  const shell = async (script: string, options: Options = {}): Promise<Ended> => {
    const { env } = await start();
    return ended("bash", ["-c", script.replaceAll("agentid", `'${node}' '${built.agentid}'`)], { ...options, env });
  };

  test("asks for what it will execute and becomes it: same process, its exit code", async () => {
    const { control, env } = await start();
    const cwd = realpathSync(temporaryFolder());
    const argv = ["sh", "-c", "echo $$ $0 $1; exit 7", "zero", "one two"];
    const result = await ended(node, [built.agentid, "run", "billing", "--", ...argv], { env, cwd });
    expect(result).toMatchObject({ out: `${result.pid} zero one two\n`, err: "", code: 7 });
    expect(control.asked).toEqual([{ name: "billing", argv, workingDirectory: cwd, adopter: expect.any(Number) }]);
  });

  test("leaves no signal ignored or blocked, and yes | head ends by SIGPIPE", async () => {
    const { out } = await run(["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"]);
    expect(out).toBe("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    const piped = await shell("set -o pipefail; agentid run billing -- yes | head -n 1; echo $?");
    expect(piped.out).toBe("y\n141\n");
  });

  test("leaves standard input, output and error to the command, blocking and open", async () => {
    const input = "line\n".repeat(100_000);
    expect((await run(["cat"], { input })).out).toBe(input);
    const flags = await shell(
      "echo in | agentid run billing -- cat /proc/self/fdinfo/0 /proc/self/fdinfo/1 /proc/self/fdinfo/2 2>&1 | grep flags",
    );
    const found = flags.out
      .trim()
      .split("\n")
      .map((line) => Number.parseInt(line.split(/\s+/)[1] ?? "", 8));
    expect(found.map((value) => value & 0o4000)).toEqual([0, 0, 0]);
  });

  test("passes on the descriptors it was given and none of its own", async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, "given"), "given\n");
    const command = "sh -c 'cat <&3; ls /proc/self/fd' 3<given";
    const { out } = await shell(`agentid run billing -- ${command}`, { cwd: folder });
    expect(out.startsWith("given\n0\n1\n2\n")).toBe(true);
    expect(out).toBe((await shell(command, { cwd: folder })).out);
  });

  test("gives back the limit on open files that Node raised", async () => {
    const limits = await shell("ulimit -Sn 512; agentid run billing -- sh -c 'ulimit -Sn; ulimit -Hn'; ulimit -Hn");
    const [soft, hard, shellsHard] = limits.out.trim().split("\n");
    expect([soft, hard]).toEqual(["512", shellsHard]);
  });

  test("says as a shell does that a command is missing (127) or not executable (126)", async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, "plain"), "text");
    expect(await run(["no-such-command-anywhere"])).toMatchObject({
      code: 127,
      err: expect.stringContaining("not found"),
    });
    expect(await run(["./missing"], { cwd: folder })).toMatchObject({ code: 127 });
    expect(await run(["./plain"], { cwd: folder })).toMatchObject({
      code: 126,
      err: expect.stringContaining("not executable"),
    });
    expect(await run(["./"], { cwd: folder })).toMatchObject({ code: 126 });
    chmodSync(join(folder, "plain"), 0o755);
    // Executable and yet no program: the kernel says ENOEXEC.
    expect(await run(["./plain"], { cwd: folder })).toMatchObject({ code: 126 });
  });

  test("exits with 3 and the reason when refused, 4 when nobody runs, 2 on wrong usage", async () => {
    expect(await run(["echo", "never"], { answer: refusal })).toMatchObject({
      code: 3,
      out: "",
      err: "agentid: agents/billing.py is not what was pinned\n  agentid pin billing\n",
    });
    const gone = { AGENTID_CONTROL: `unix://${temporaryFolder()}/none.sock` };
    expect(await run(["true"], { env: gone })).toMatchObject({ code: 4, err: expect.stringContaining("agentid dev") });
    expect(await run([])).toMatchObject({ code: 2, err: expect.stringContaining("usage:") });
    expect(await run(["true"], { env: { AGENTID_CONTROL: "tcp://x" } })).toMatchObject({ code: 2 });
    expect(await run(["true"])).toMatchObject({ code: 0, err: "" });
  });

  test("removes what loads code or looks like a secret, keeps what the entry keeps, sets what the daemon sets", async () => {
    const env = {
      PYTHONPATH: "/x",
      NODE_OPTIONS: "",
      STRIPE_API_KEY: "k",
      GITHUB_TOKEN: "t",
      KEPT_TOKEN: "kept",
      HARMLESS: "h",
    };
    const { out } = await run(["env"], {
      env,
      answer: { setEnv: { SPIFFE_ENDPOINT_SOCKET: "unix:///s" }, keepEnv: ["KEPT_TOKEN"] },
    });
    const names = out.split("\n").map((line) => line.split("=")[0]);
    expect(names).toEqual(expect.arrayContaining(["PATH", "HARMLESS", "KEPT_TOKEN", "SPIFFE_ENDPOINT_SOCKET"]));
    for (const removed of ["PYTHONPATH", "NODE_OPTIONS", "STRIPE_API_KEY", "GITHUB_TOKEN"])
      expect(names).not.toContain(removed);
  });

  describe("in a terminal", () => {
    const terminal = async (command: string, args: readonly string[]) => {
      const { env } = await start();
      const pty = spawnTerminal(command, [...args], { cols: 200, env: { ...process.env, ...env, PS1: "prompt> " } });
      let screen = "";
      const listeners = new Set<() => void>();
      pty.onData((data) => {
        screen += data;
        for (const listener of listeners) listener();
      });
      const exit = new Promise<{ exitCode: number; signal?: number | undefined }>((resolve) => pty.onExit(resolve));
      let exited = false;
      void exit.then(() => {
        exited = true;
      });
      atEnd(async () => {
        if (!exited) pty.kill("SIGKILL");
        await exit;
      });
      /** Resolves when the screen shows `wanted` after what was seen before. */
      let seen = 0;
      const shows = (wanted: string) =>
        new Promise<void>((resolve, reject) => {
          const deadline = setTimeout(
            () => reject(new Error(`"${wanted}" never came; on the screen: ${screen}`)),
            10_000,
          );
          const look = () => {
            const at = screen.indexOf(wanted, seen);
            if (at === -1) return;
            seen = at + wanted.length;
            listeners.delete(look);
            clearTimeout(deadline);
            resolve();
          };
          listeners.add(look);
          look();
        });
      return { pty, exit, shows, screen: () => screen };
    };
    const agent = (...argv: string[]) => terminal(node, [built.agentid, "run", "billing", "--", ...argv]);

    test("Ctrl-C interrupts the command", async () => {
      const trapped = await agent("bash", "-c", "trap 'echo got it; exit 9' INT; echo up; while :; do sleep 0.1; done");
      await trapped.shows("up");
      trapped.pty.write("\x03");
      await trapped.shows("got it");
      expect((await trapped.exit).exitCode).toBe(9);
      const plain = await agent("sh", "-c", "echo up; exec sleep 60");
      await plain.shows("up");
      plain.pty.write("\x03");
      expect((await plain.exit).signal).toBe(2);
    });

    test("Ctrl-Z stops the command and fg continues it", async () => {
      const shell = await terminal("bash", ["--norc", "--noprofile", "-i"]);
      await shell.shows("prompt> ");
      // No loop of commands: a dash that is stopped between vfork and exec of one never shows as stopped.
      const script = `trap 'echo con""tinued; kill $!; exit 0' CONT; sleep 60 & echo u""p; wait`;
      shell.pty.write(`'${node}' '${built.agentid}' run billing -- bash -c '${script.replaceAll("'", "'\\''")}'\r`);
      await shell.shows("up");
      shell.pty.write("\x1a");
      await shell.shows("Stopped");
      shell.pty.write("fg\r");
      await shell.shows("continued");
      await shell.shows("prompt> ");
      shell.pty.write("exit 0\r");
      await shell.exit;
    });

    test("raw mode is the command's, and the settings are those of before", async () => {
      const raw = await agent("sh", "-c", "stty raw -echo; echo up; head -c 3 | od -An -c; stty sane");
      await raw.shows("up");
      raw.pty.write("\x03ab");
      await raw.shows("003   a   b");
      await raw.exit;
      const settings = await terminal("bash", ["-c", `stty -g; '${node}' '${built.agentid}' run billing -- stty -g`]);
      await settings.exit;
      const [before, after] = settings.screen().trim().split(/\r?\n/);
      expect(after).toBe(before);
    });
  });
});
