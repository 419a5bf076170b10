import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { chmodSync, chownSync, cpSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";
import type { AgentidEvent } from "../../src/control-api/events.js";

/** Drives the real binary, as a newcomer does: what `bin/agentid.js` prints, answers and leaves behind. */

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
export const bin = join(root, "bin", "agentid.js");

/** An ordinary user to run the daemon and its agents as, where the tests run as root; else the user of the tests. */
export const ordinaryUser: { readonly uid: number; readonly gid: number } | undefined = (() => {
  if (process.getuid?.() !== 0) return undefined;
  const user = { uid: 65_534, gid: 65_534 };
  // A checkout below a folder that only root may enter cannot be run by anybody else.
  const readable = spawnSync(process.execPath, [bin, "--version"], { ...user, stdio: "ignore" }).status === 0;
  if (!readable) process.stderr.write("e2e: this checkout is closed to other users; the daemon runs as root\n");
  return readable ? user : undefined;
})();

/** A Python that the ordinary user can run, for agents of another language. */
export const python = ["/usr/bin/python3", "python3"].find(
  (candidate) => spawnSync(candidate, ["-c", ""], { ...ordinaryUser, stdio: "ignore" }).status === 0,
);

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: string;
  /** Default: the ordinary user. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
}

/** Runs one agentid command to its end. */
export function agentid(args: readonly string[], options: RunOptions): Promise<Finished> {
  return run(process.execPath, [bin, ...args], options);
}

/** Runs any command to its end. */
export function run(command: string, args: readonly string[], options: RunOptions): Promise<Finished> {
  const child = spawn(command, args, { ...spawnOptions(options), stdio: "pipe" });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  child.stdin.on("error", () => {});
  child.stdin.end(options.input ?? "");
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

function spawnOptions({ cwd, env, user = ordinaryUser }: RunOptions) {
  return { cwd, env: { ...cleanEnvironment(cwd), ...env }, ...user };
}

/**
 * The tests' own trust domain, if they run in one, must not be found by the commands under test. The shell is named:
 * where nothing names one, tmux takes the one in the account, and that of `nobody` ends at once.
 */
function cleanEnvironment(cwd: string): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(AGENTID_|SPIFFE_|XDG_RUNTIME_DIR|npm_|VITEST|NODE_OPTIONS|DBUS_|OTEL_|TMPDIR)/.test(name),
  );
  return { ...Object.fromEntries(kept), HOME: cwd, TMPDIR: runtimeBase(), SHELL: "/bin/sh", NO_COLOR: "1" };
}

let base: string | undefined;
const removeBase = () => {
  if (base !== undefined) rmSync(base, { recursive: true, force: true });
};
// The test runner ends its workers without an exit; the soak and the benches are programs of their own.
if (process.env.VITEST === undefined) process.once("exit", removeBase);
else afterAll(removeBase);

/** One short folder for sockets, so that what is left behind can be counted. */
export function runtimeBase(): string {
  if (base === undefined) {
    base = mkdtempSync(join(tmpdir(), "ae-"));
    chmodSync(base, 0o777);
  }
  return base;
}

/** A project folder that belongs to the ordinary user, with these files in it. */
export function makeProject(files: Readonly<Record<string, string>>, from?: string): string {
  const project = mkdtempSync(join(runtimeBase(), "p-"));
  if (from !== undefined) cpSync(from, project, { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    spawnSync("mkdir", ["-p", dirname(join(project, name))]);
    writeFileSync(join(project, name), text);
  }
  giveTo(project);
  return project;
}

/** Makes `path` and all below it the ordinary user's. */
export function giveTo(path: string): void {
  if (ordinaryUser === undefined) return;
  chownSync(path, ordinaryUser.uid, ordinaryUser.gid);
  if (!statSync(path).isDirectory()) return;
  for (const name of readdirSync(path)) giveTo(join(path, name));
}

export type Ready = Extract<AgentidEvent, { event: "ready" }>;

export interface RunningDev {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly ready: Ready;
  readonly events: readonly AgentidEvent[];
  /** What a program needs to find the trust domain. */
  readonly env: Readonly<Record<string, string>>;
  stderr(): string;
  /** The first event, from `since` on, that `wanted` accepts. */
  until(wanted: (event: AgentidEvent) => boolean, since?: number): Promise<AgentidEvent>;
  /** Ends it by signal and waits. */
  stop(signal?: NodeJS.Signals): Promise<Finished>;
}

const DEADLINE_MS = process.env.CI ? 100_000 : 25_000;

/** `agentid dev --json`, ready. */
export async function startDev(
  project: string,
  args: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<RunningDev> {
  const child = spawn(process.execPath, [bin, "dev", "--json", ...args], {
    ...spawnOptions({ cwd: project, env }),
    stdio: ["ignore", "pipe", "pipe"],
  });
  const events: AgentidEvent[] = [];
  const waiting = new Set<() => void>();
  const wakeAll = () => {
    for (const wake of waiting) wake();
  };
  let stdout = "";
  let stderr = "";
  let finished: Finished | undefined;
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  createInterface({ input: child.stdout }).on("line", (line) => {
    stdout += `${line}\n`;
    const parsed = JSON.parse(line) as AgentidEvent | { error: unknown };
    if ("event" in parsed) events.push(parsed);
    wakeAll();
  });
  const closed = new Promise<Finished>((resolve) => {
    child.once("close", (code, signal) => {
      finished = { code, signal, stdout, stderr };
      wakeAll();
      resolve(finished);
    });
  });
  async function until(wanted: (event: AgentidEvent) => boolean, since = 0): Promise<AgentidEvent> {
    const deadline = Date.now() + DEADLINE_MS;
    for (;;) {
      const found = events.slice(since).find(wanted);
      if (found) return found;
      if (finished) throw new Error(`agentid dev ended (${finished.code}): ${stderr}${stdout}`);
      if (Date.now() > deadline) {
        throw new Error(`no such event in ${JSON.stringify(events.slice(since).map(({ event }) => event))}: ${stderr}`);
      }
      await new Promise<void>((resolve) => {
        const wake = () => {
          waiting.delete(wake);
          resolve();
        };
        waiting.add(wake);
        setTimeout(wake, 250).unref();
      });
    }
  }
  const ready = (await until(({ event }) => event === "ready")) as Ready;
  return {
    child,
    pid: child.pid ?? 0,
    ready,
    events,
    env: {
      SPIFFE_ENDPOINT_SOCKET: ready.workloadApi,
      AGENTID_CONTROL: ready.control,
      ...Object.fromEntries(
        Object.entries(ready.services).map(([name, { url }]) => [
          `AGENTID_URL_${name.toUpperCase().replaceAll("-", "_")}`,
          url,
        ]),
      ),
    },
    stderr: () => stderr,
    until,
    async stop(signal = "SIGTERM") {
      child.kill(signal);
      return await closed;
    },
  };
}

/** Starts a program that stays; `line()` gives its next line of output. */
export function startProgram(command: string, args: readonly string[], options: RunOptions) {
  const child = spawn(command, args, { ...spawnOptions(options), stdio: "pipe" });
  const lines: string[] = [];
  let stderr = "";
  let ended = false;
  let wake: () => void = () => {};
  createInterface({ input: child.stdout }).on("line", (line) => {
    lines.push(line);
    wake();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  child.once("close", () => {
    ended = true;
    wake();
  });
  return {
    child,
    pid: child.pid ?? 0,
    write: (text: string) => child.stdin.write(text),
    async line(): Promise<string> {
      const deadline = Date.now() + DEADLINE_MS;
      while (lines.length === 0) {
        if (ended) throw new Error(`program ended: ${stderr}`);
        if (Date.now() > deadline) throw new Error(`program is silent: ${stderr}`);
        await new Promise<void>((resolve) => {
          wake = resolve;
          setTimeout(resolve, 250).unref();
        });
      }
      return lines.shift() ?? "";
    },
    async end(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
      if (ended) return;
      const closed = new Promise((resolve) => child.once("close", resolve));
      child.kill(signal);
      await closed;
    },
  };
}
