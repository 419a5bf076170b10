import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { codeOf, messageOf } from "../coded-error.js";
import { SecretError } from "./secret-error.js";

const MOST_BYTES = 1024 * 1024;

/**
 * The value of `key` in a file of lines `KEY=VALUE`, or undefined where no line has it. Throws SecretError `secret-missing` without the file, and
 * `secret-unreadable` for one that others may read or change: what everybody can read is no secret.
 */
export async function readEnvironmentFile(path: string, key: string): Promise<string | undefined> {
  let handle: FileHandle;
  try {
    // Opening a named pipe in blocking mode would wait until somebody writes to it.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") throw new SecretError("secret-missing", `there is no file ${path}`);
    throw new SecretError("secret-unreadable", `cannot read ${path}: ${messageOf(cause)}`, { cause });
  }
  try {
    const stats = await handle.stat();
    const user = process.geteuid?.() ?? stats.uid;
    if (!stats.isFile()) throw new SecretError("secret-unreadable", `${path} is not a regular file`);
    if ((stats.mode & 0o077) !== 0) {
      const mode = (stats.mode & 0o777).toString(8).padStart(4, "0");
      throw new SecretError("secret-unreadable", `${path} is open to other users (mode ${mode})`, {
        hint: `chmod 600 ${path}`,
      });
    }
    if (stats.uid !== user && stats.uid !== 0) {
      throw new SecretError("secret-unreadable", `${path} belongs to the user with uid ${stats.uid}`);
    }
    if (stats.size > MOST_BYTES) throw new SecretError("secret-unreadable", `${path} is larger than 1 MiB`);
    return valueIn(await handle.readFile("utf8"), key, path);
  } catch (thrown) {
    if (thrown instanceof SecretError) throw thrown;
    throw new SecretError("secret-unreadable", `cannot read ${path}: ${messageOf(thrown)}`, { cause: thrown });
  } finally {
    await handle.close();
  }
}

const LINE = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)$/;

function valueIn(text: string, key: string, path: string): string | undefined {
  const found = text.split(/\r?\n/).flatMap((line) => {
    const match = LINE.exec(line);
    return match?.[1] === key ? [unquoted(match[2] ?? "")] : [];
  });
  if (found.length > 1) throw new SecretError("secret-unreadable", `${path} has ${key} more than once`);
  return found[0];
}

/** `"a"` and `'a'` are `a`; without quotes a blank before `#` begins a comment. Nothing is expanded. */
function unquoted(written: string): string {
  const text = written.trim();
  const quoted = /^(["'])(.*)\1(?:\s+#.*)?$/.exec(text);
  return quoted === null ? text.replace(/(?:^|\s+)#.*$/, "") : (quoted[2] ?? "");
}
