import { writeSync } from "node:fs";
import { codeOf, messageOf } from "../coded-error.js";
import { findCommand } from "../platform/command-path.js";
import { errnoName } from "../platform/libc.js";
import { type InheritedState, replaceProcess, restoreInherited } from "../platform/replace-process.js";

const NOT_FOUND = 127;
const NOT_EXECUTABLE = 126;

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

/**
 * Turns this process into the command: same PID, no wrapper, nothing of Node left in its signals, descriptors and limits (D7). The terminal's
 * settings were never touched. Exits with 127 when the command is not found and 126 when it cannot be executed, as a shell does.
 */
export function becomeProcess(
  argv: readonly string[],
  environment: Readonly<Record<string, string>>,
  { initialState }: { readonly initialState: InheritedState },
): never {
  const name = argv[0] ?? "";
  const path = commandPathOrExit(name, environment);
  restoreInherited(initialState);
  const { failure, errno } = replaceProcess(path, argv, environment);
  complain(`agentid: ${name}: cannot be executed: ${errnoName(errno)}`);
  process.exit(failure === "not-found" ? NOT_FOUND : NOT_EXECUTABLE);
}
