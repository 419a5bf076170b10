import { fstatSync, statSync } from "node:fs";

/** Whether `path` leads to the file open at `fd`. */
export function isFileAt(fd: number, path: string): boolean {
  try {
    const open = fstatSync(fd, { bigint: true });
    const named = statSync(path, { bigint: true });
    return open.dev === named.dev && open.ino === named.ino;
  } catch {
    return false; // deleted, or not for us to see
  }
}
