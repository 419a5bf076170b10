import { accessSync, constants, statSync } from "node:fs";
import { resolve } from "node:path";
import { CodedError } from "../coded-error.js";

/** A command's name leads to no program. `command-not-found` is a shell's exit code 127, `command-not-executable` its 126. */
class CommandPathError extends CodedError<"command-not-found" | "command-not-executable"> {
  override readonly name = "CommandPathError";
}

/** What execvp(3) searches when PATH is not set. */
const DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin";

/** The absolute path that execvp would execute for `name`: itself when it has a slash, else the first executable on PATH. Throws CommandPathError. */
export function findCommand(
  name: string,
  workingDirectory: string,
  env: Readonly<Record<string, string | undefined>>,
): string {
  const candidates = name.includes("/")
    ? [resolve(workingDirectory, name)]
    : (env.PATH ?? DEFAULT_PATH).split(":").map((folder) => resolve(workingDirectory, folder, name));
  let found = false;
  for (const candidate of name === "" ? [] : candidates) {
    try {
      if (statSync(candidate).isFile()) {
        found = true;
        accessSync(candidate, constants.X_OK);
        return candidate;
      }
      // A folder can be found, not executed.
      found ||= name.includes("/");
    } catch {
      // not this one: the next folder of PATH
    }
  }
  throw found
    ? new CommandPathError("command-not-executable", `${name}: not executable`, {
        hint: `Make it so: chmod +x ${name}`,
      })
    : new CommandPathError("command-not-found", `${name}: command not found`, {
        hint: "Is it installed, and on the PATH?",
      });
}
