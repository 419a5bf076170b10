import { spawn } from "node:child_process";
import { CodedError } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";

/** What no client of a Workload API can bring about, and its operator can. Each resolves when the change is made. */
export interface Hooks {
  /** Replaces the X.509-SVIDs of this process. */
  readonly rotate?: (() => Promise<void>) | undefined;
  /** Takes the identity `id` away from this process. */
  readonly remove?: ((id: string) => Promise<void>) | undefined;
  /** Gives the identity `id` back. */
  readonly restore?: ((id: string) => Promise<void>) | undefined;
}

/** Shell commands for the hooks; `$SPIFFE_ID` is the identity that is meant. They throw CodedError `conformance-hook`. */
export function commandHooks(commands: { readonly [Name in keyof Hooks]: string | undefined }, clock: Clock): Hooks {
  const { rotate, remove, restore } = commands;
  const ofIdentity = (command: string | undefined) =>
    command === undefined ? undefined : (id: string) => runCommand(command, { SPIFFE_ID: id }, clock);
  return {
    rotate: rotate === undefined ? undefined : () => runCommand(rotate, {}, clock),
    remove: ofIdentity(remove),
    restore: ofIdentity(restore),
  };
}

const LONGEST_MS = 60_000;

/** Waits for the end of `command`. Throws CodedError `conformance-hook` unless it ends with 0 within a minute: what follows would say nothing of the server. */
async function runCommand(command: string, variables: Readonly<Record<string, string>>, clock: Clock): Promise<void> {
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
