import type { InheritedState } from "../platform/inherited-state.js";
import { errnoName } from "../platform/libc.js";
import { replaceProcess, restoreInherited } from "../platform/replace-process.js";
import { commandPathOrExit, complain, NOT_EXECUTABLE, NOT_FOUND } from "./exit-like-a-shell.js";

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
  const found = commandPathOrExit(name, environment);
  // A script finds its own path as it was executed, and so does the daemon: as it was written, where PATH was not asked.
  const path = name.includes("/") ? name : found;
  restoreInherited(initialState);
  const { failure, errno } = replaceProcess(path, argv, environment);
  complain(`agentid: ${name}: cannot be executed: ${errnoName(errno)}`);
  process.exit(failure === "not-found" ? NOT_FOUND : NOT_EXECUTABLE);
}
