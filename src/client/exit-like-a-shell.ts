import { writeSync } from "node:fs";
import { codeOf, messageOf } from "../coded-error.js";
import { findCommand } from "../platform/command-path.js";

export const NOT_FOUND = 127;
export const NOT_EXECUTABLE = 126;

/** Prints on descriptor 2 without Node's streams, which would leave a pipe non-blocking for the command. */
export function complain(text: string): void {
  try {
    writeSync(2, `${text}\n`);
  } catch {
    // nobody listens on descriptor 2; the exit code still tells
  }
}

/** The path that will be executed, or the end of this process with a shell's exit codes: 127 not found, 126 not executable. */
export function commandPathOrExit(name: string, environment: Readonly<Record<string, string | undefined>>): string {
  try {
    return findCommand(name, process.cwd(), environment);
  } catch (thrown) {
    complain(`agentid: ${messageOf(thrown)}`);
    process.exit(codeOf(thrown) === "command-not-executable" ? NOT_EXECUTABLE : NOT_FOUND);
  }
}
