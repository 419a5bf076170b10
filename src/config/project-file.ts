import { createHash } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { open, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { codeOf, messageOf } from "../coded-error.js";
import { ConfigError } from "./config-error.js";

export interface ProjectFile {
  readonly text: string;
  /** Hex SHA-256 of the bytes. */
  readonly digest: string;
}

/**
 * Reads a text file of the project whole, or undefined when there is none.
 * Throws ConfigError `config-unreadable`, `config-untrusted`, and `config-invalid` when it is over `maxBytes`, not a regular file, or not UTF-8.
 * `label` is how problems name it.
 */
export async function readProjectFile(file: string, label: string, maxBytes: number): Promise<ProjectFile | undefined> {
  const wrong = (message: string) => new ConfigError("config-invalid", [wholeFile(label, message)]);
  let bytes: Buffer;
  try {
    // Opening a named pipe in blocking mode would wait until somebody writes to it.
    const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = await handle.stat();
      if (!stats.isFile()) throw wrong("not a regular file");
      const folder = await stat(dirname(file));
      const distrust = distrustOf(stats, folder, process.geteuid?.() ?? stats.uid);
      if (distrust !== undefined) {
        throw new ConfigError("config-untrusted", [wholeFile(label, distrust.reason)], { hint: distrust.hint });
      }
      if (stats.size > maxBytes) throw wrong(`larger than ${maxBytes / 1024} KiB`);
      bytes = await handle.readFile();
    } finally {
      await handle.close();
    }
  } catch (thrown) {
    if (thrown instanceof ConfigError) throw thrown;
    if (codeOf(thrown) === "ENOENT") return undefined;
    throw new ConfigError("config-unreadable", [wholeFile(label, messageOf(thrown))], { cause: thrown });
  }
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return { text, digest: createHash("sha256").update(bytes).digest("hex") };
  } catch (thrown) {
    throw new ConfigError("config-invalid", [wholeFile(label, "not UTF-8 text")], { cause: thrown });
  }
}

/**
 * The file names programs that agentid starts, and the nearest one above the working directory counts: without this, a file that somebody
 * puts into `/tmp` would run as whoever works in a folder below it (git's CVE-2022-24765). Trusted are the user and root. Root itself also
 * trusts the owner of the folder, because it works on other users' checkouts in containers.
 */
export function distrustOf(
  file: Pick<Stats, "uid" | "mode">,
  folder: Pick<Stats, "uid">,
  userId: number,
): { readonly reason: string; readonly hint: string } | undefined {
  if ((file.mode & 0o002) !== 0) {
    return { reason: "every user of this machine can change it", hint: "chmod o-w the file" };
  }
  const trusted = file.uid === userId || file.uid === 0 || (userId === 0 && file.uid === folder.uid);
  if (trusted) return undefined;
  return {
    reason: `belongs to the user with uid ${file.uid}, and it would start programs as you (uid ${userId})`,
    hint: "if you trust it, make it yours with chown; else work in a folder without it above",
  };
}

function wholeFile(file: string, message: string) {
  return { file, line: 0, column: 0, path: "", message };
}
