import { randomBytes } from "node:crypto";
import { closeSync, fchmodSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { CodedError, messageOf } from "../../../coded-error.js";

/**
 * Replaces `path` by a file with `contents`, whole or not at all: a program that reads it never sees half a certificate. `secret` files are
 * their owner's alone (0600) from the first byte on. Throws CodedError `file-unwritable`.
 */
export function writeWholeFile(path: string, contents: Buffer | string, secret: boolean): void {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
  try {
    const descriptor = openSync(temporary, "wx", secret ? 0o600 : 0o644);
    try {
      if (secret) fchmodSync(descriptor, 0o600);
      writeFileSync(descriptor, contents);
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, path);
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw new CodedError("file-unwritable", `cannot write ${path}: ${messageOf(cause)}`, { cause });
  }
}

/** Makes the folder `path`, the owner's alone, if it is missing. Throws CodedError `file-unwritable`. */
export function makePrivateFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new CodedError("file-unwritable", `cannot make ${path}: ${messageOf(cause)}`, { cause });
  }
}
