import { type ChildProcess, execFile, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { preparePythonEnvironment } from "./python-environment.js";

const execute = promisify(execFile);
const here = import.meta.dirname;
/** Builds and downloads stay here; git ignores it. */
const cache = join(here, "../../.cache/interop");

/** A program built on somebody else's SPIFFE library. */
export interface ForeignWorkload {
  /** What the kernel will name as its executable. */
  readonly exePath: string;
  /** How it is started. */
  readonly command: readonly string[];
}

/** What is missing on this machine, for people; or the workload. */
export type Prepared = { readonly workload: ForeignWorkload } | { readonly missing: string };

/** The go-spiffe program, as an executable of its own called `name`. */
export async function prepareGo(name: string): Promise<Prepared> {
  if (!(await runs("go", ["version"]))) return { missing: "go is not installed" };
  mkdirSync(cache, { recursive: true });
  const built = join(cache, "workload");
  await execute("go", ["build", "-o", built, "."], { cwd: join(here, "go") });
  const exePath = join(cache, name);
  copyFileSync(built, exePath);
  return { workload: { exePath: realpathSync(exePath), command: [exePath] } };
}

/** The py-spiffe program in a virtual environment of its own, made on demand. */
export async function preparePython(): Promise<Prepared> {
  const environment = await preparePythonEnvironment("python", join(here, "python/requirements.txt"));
  if ("missing" in environment) return environment;
  const { python } = environment;
  const { stdout } = await execute(python, ["-c", "import os; print(os.path.realpath('/proc/self/exe'))"]);
  return { workload: { exePath: stdout.trim(), command: [python, join(here, "python/workload.py")] } };
}

async function runs(file: string, args: readonly string[]): Promise<boolean> {
  return execute(file, args).then(
    () => true,
    () => false,
  );
}

/** A running workload: its lines of JSON one by one. */
export interface RunningWorkload {
  /** The next line it says. Rejects, with what it wrote to standard error, if it ends first. */
  next(): Promise<Record<string, unknown>>;
  /** Closes its standard input, which ends the subcommands that go on; resolves when it has exited, with its code. */
  stop(): Promise<number | null>;
}

export function startWorkload(
  { command }: ForeignWorkload,
  socketPath: string,
  ...args: readonly string[]
): RunningWorkload {
  const [file = "", ...first] = command;
  const env = { ...process.env, SPIFFE_ENDPOINT_SOCKET: `unix://${socketPath}` };
  const child = spawn(file, [...first, ...args], { env, stdio: ["pipe", "pipe", "pipe"] });
  const exited = exitOf(child);
  let errors = "";
  child.stderr.on("data", (data) => {
    errors += String(data);
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async next() {
      const { value, done } = await lines.next();
      if (done === true) throw new Error(`${file} ${args.join(" ")} ended with ${await exited}: ${errors}`);
      return JSON.parse(value);
    },
    stop() {
      child.stdin.end();
      return exited;
    },
  };
}

function exitOf(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => child.once("close", (code) => resolve(code)));
}
