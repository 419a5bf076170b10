import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { codeOf, messageOf } from "../coded-error.js";
import { ConfigError } from "./config-error.js";

export interface ProjectFile {
  readonly text: string;
  /** Hex SHA-256 of the bytes. */
  readonly digest: string;
}

/**
 * Reads a text file of the project whole, or undefined when there is none.
 * Throws ConfigError `config-unreadable`, and `config-invalid` when it is over `maxBytes`, not a regular file, or not UTF-8.
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

function wholeFile(file: string, message: string) {
  return { file, line: 0, column: 0, path: "", message };
}
