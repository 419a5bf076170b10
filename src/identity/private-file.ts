import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  type Stats,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { codeOf, messageOf } from "../coded-error.js";
import { KeyStoreError } from "./key-store-error.js";

/** Makes `directory` if it is missing, and refuses one that others own or may enter. Throws KeyStoreError. */
export function preparePrivateDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new KeyStoreError("key-store-unwritable", `cannot make ${directory}: ${messageOf(cause)}`, { cause });
  }
  const stats = lstatSync(directory);
  if (!stats.isDirectory()) throw new KeyStoreError("key-store-not-a-file", `${directory} is not a directory`);
  refuseForeign(directory, stats, "700");
}

/** The text of `path`, or undefined if there is no such file. Refuses links, and files that others own, may read or also hold under another name. Throws KeyStoreError. */
export function readPrivateFile(path: string): string | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") return undefined;
    if (codeOf(cause) === "ELOOP") throw new KeyStoreError("key-store-not-a-file", `${path} is a link`, { cause });
    throw new KeyStoreError("key-store-unreadable", `cannot read ${path}: ${messageOf(cause)}`, { cause });
  }
  try {
    const stats = fstatSync(descriptor);
    if (!stats.isFile() || stats.nlink !== 1) {
      throw new KeyStoreError("key-store-not-a-file", `${path} is not a plain file with one name`);
    }
    refuseForeign(path, stats, "600");
    return readFileSync(descriptor, "utf8");
  } finally {
    closeSync(descriptor);
  }
}

/** Replaces `path` by a 0600 file with `text`, whole or not at all, also if the power fails. Throws KeyStoreError `key-store-unwritable`. */
export function writePrivateFile(path: string, text: string): void {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
  try {
    const descriptor = openSync(temporary, "wx", 0o600);
    try {
      // The umask can only have taken bits away, but a key without its owner's bits could not be read again.
      fchmodSync(descriptor, 0o600);
      const bytes = Buffer.from(text, "utf8");
      for (let written = 0; written < bytes.length; ) written += writeSync(descriptor, bytes, written);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, path);
    syncDirectory(dirname(path));
  } catch (cause) {
    removeIfThere(temporary);
    throw new KeyStoreError("key-store-unwritable", `cannot write ${path}: ${messageOf(cause)}`, { cause });
  }
}

/** Removes what a killed process left of unfinished writes of `path`. */
export function removeUnfinishedWrites(path: string): void {
  const directory = dirname(path);
  const isUnfinished = (name: string) => name.startsWith(`.${basename(path)}.`) && name.endsWith(".tmp");
  for (const name of readdirSync(directory).filter(isUnfinished)) removeIfThere(join(directory, name));
}

function refuseForeign(path: string, stats: Stats, mode: "600" | "700"): void {
  const user = process.geteuid?.();
  if (stats.uid !== user) {
    throw new KeyStoreError("key-store-owner", `${path} belongs to user ${stats.uid}, not to ${user}`, {
      hint: "keys that somebody else could have put there are not used; remove it or take it over with chown",
    });
  }
  if ((stats.mode & 0o077) === 0) return;
  const is = (stats.mode & 0o777).toString(8);
  throw new KeyStoreError("key-store-mode", `${path} has mode ${is}: other users can reach the keys`, {
    hint: `chmod ${mode} ${path}, and if others use this machine, rotate the keys`,
  });
}

function syncDirectory(directory: string): void {
  const descriptor = openSync(directory, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It was never made, or is out of reach: the write's own error says why.
  }
}
