import { spawn } from "node:child_process";
import { CodedError } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";

/** Commands of the operator for what no client of a Workload API can bring about. Each is run by the shell. */
export interface Hooks {
  /** Replaces the X.509-SVIDs of this process. */
  readonly rotate?: string | undefined;
  /** Takes the identity `$SPIFFE_ID` away from this process. */
  readonly remove?: string | undefined;
  /** Gives the identity `$SPIFFE_ID` back. */
  readonly restore?: string | undefined;
}

const LONGEST_MS = 60_000;

/** Runs `command` and waits for its end. Throws CodedError `conformance-hook` unless it ends with 0 within a minute: what follows would say nothing of the server. */
export async function runHook(
  command: string,
  variables: Readonly<Record<string, string>>,
  clock: Clock,
): Promise<void> {
  const child = spawn("/bin/sh", ["-c", command], {
    env: { ...process.env, ...variables },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-2000);
  });
  const cancel = clock.after(LONGEST_MS, () => child.kill("SIGKILL"));
  const how = await new Promise<string | undefined>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) =>
      resolve(code === 0 ? undefined : `it ended with ${signal ?? `code ${code}`}: ${stderr.trim()}`),
    );
  });
  cancel();
  if (how === undefined) return;
  throw new CodedError("conformance-hook", `the command ${JSON.stringify(command)} failed: ${how}`, {
    hint: "run it by hand first; it must end with 0 when the change is made",
  });
}
