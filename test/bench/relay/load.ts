import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** Proxies run on one core, what calls and what answers on the other: neither is measured with the other's work in it. */
export const PROXY_CORE = availableParallelism() > 1 ? 1 : 0;
const LOAD_CORE = 0;

/** Where calls go, and with which certificate. */
export interface Target {
  readonly address: string;
  readonly tls?: { readonly cert: string; readonly key: string };
}

/** The generator: a program of Go, built from `load/` into `directory`. Returns its path, or undefined where there is no Go. */
export function buildLoad(directory: string): string | undefined {
  const program = join(directory, "load");
  try {
    execFileSync("go", ["build", "-o", program, "."], { cwd: join(import.meta.dirname, "load"), stdio: "inherit" });
    return program;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Starts `program` in `mode`, and resolves with the first line it prints. It ends when its input does. */
export async function startLoad<Answer>(
  program: string,
  mode: string,
  target: Target | undefined,
  flags: Readonly<Record<string, number>> = {},
): Promise<{ child: ChildProcess; answer: Answer }> {
  const to = target === undefined ? [] : ["-address", target.address];
  const tls = target?.tls === undefined ? [] : ["-cert", target.tls.cert, "-key", target.tls.key];
  const numbers = Object.entries(flags).flatMap(([name, value]) => [`-${name}`, String(value)]);
  const pinned = ["-c", String(LOAD_CORE), program, mode, ...to, ...tls, ...numbers];
  const child = spawn("taskset", pinned, {
    env: { ...process.env, GOMAXPROCS: "2" },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const line = await new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).once("line", resolve);
    child.once("exit", (code) => reject(new Error(`load ${mode} ended with code ${code}`)));
  });
  return { child, answer: JSON.parse(line) as Answer };
}
