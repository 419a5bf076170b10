import { spawn } from "node:child_process";
import { messageOf } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";
import { SecretError } from "./secret-error.js";

const DEADLINE_MS = 10_000;
const MOST_BYTES = 64 * 1024;

export interface SecretCommand {
  readonly argv: readonly string[];
  readonly workingDirectory: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
}

/**
 * What a command prints. What it says on standard error is thrown away: it may hold what it was asked for. Throws SecretError `secret-unreadable`
 * where it fails, is slow, or prints more than 64 KiB; it and what it started are killed then.
 */
export function runSecretCommand({ argv, workingDirectory, environment, clock }: SecretCommand): Promise<string> {
  const [command = "", ...args] = argv;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: workingDirectory,
      env: { ...environment },
      stdio: ["ignore", "pipe", "ignore"],
      // A group of its own, to end all of it.
      detached: true,
    });
    const chunks: Buffer[] = [];
    let size = 0;
    let over = false;
    const settle = (step: () => void) => {
      if (over) return;
      over = true;
      cancel();
      step();
    };
    const fail = (why: string, cause?: unknown) =>
      settle(() => {
        child.stdout.destroy();
        killGroup(child.pid);
        reject(new SecretError("secret-unreadable", `the command ${JSON.stringify(command)} ${why}`, { cause }));
      });
    const cancel = clock.after(DEADLINE_MS, () => fail(`took longer than ${DEADLINE_MS / 1000} s`));
    child.once("error", (cause) => fail(`cannot be run: ${messageOf(cause)}`, cause));
    child.stdout.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size > MOST_BYTES) fail("printed more than 64 KiB");
      else chunks.push(chunk);
    });
    child.once("close", (code, signal) => {
      if (code !== 0) fail(signal === null ? `ended with code ${code}` : `was ended by ${signal}`);
      else settle(() => resolve(Buffer.concat(chunks).toString("utf8")));
    });
  });
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
