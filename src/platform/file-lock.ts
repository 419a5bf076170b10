import { closeSync, openSync } from "node:fs";
import koffi from "koffi";

/** An exclusive lock held by an open descriptor: the kernel lets go of it when the process ends, however it ends. */
export interface FileLock {
  release(): void;
}

const LOCK_EX = 2;
const LOCK_NB = 4;

let flock: ((fd: number, operation: number) => number) | undefined;

/** Locks `path` (created 0600), or returns undefined if another process holds it. Throws Node's own error when it cannot be opened. */
export function acquireFileLock(path: string): FileLock | undefined {
  flock ??= koffi.load(process.platform === "darwin" ? "libSystem.B.dylib" : "libc.so.6").func("int flock(int, int)");
  // Node opens with O_CLOEXEC, so no process that we start can keep the lock after us.
  const fd = openSync(path, "a", 0o600);
  if (flock(fd, LOCK_EX | LOCK_NB) !== 0) {
    closeSync(fd);
    return undefined;
  }
  return { release: () => closeSync(fd) };
}
