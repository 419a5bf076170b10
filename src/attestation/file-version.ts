import { fstatSync } from "node:fs";

/** What a file was when it was looked at: another version has, on filesystems whose times show every write, another name. */
export interface FileVersion {
  readonly version: string;
  /** Its ctime, ns since 1970. */
  readonly changedAt: bigint;
  readonly size: bigint;
}

export function versionOf(fd: number): FileVersion {
  const { dev, ino, size, mtimeNs, ctimeNs } = fstatSync(fd, { bigint: true });
  return { version: `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`, changedAt: ctimeNs, size };
}

/** A file changed within this time before it was hashed could change again without its ctime showing it (coarse kernel clocks). */
const SETTLED_NS = 2_000_000_000n;

/** Whether the file's last change is more than 2 s before `at` (ns). */
export function isSettled({ changedAt }: Pick<FileVersion, "changedAt">, at: bigint): boolean {
  return at - changedAt > SETTLED_NS;
}

/** Nanoseconds since 1970, by the clock that files are stamped with. */
export function fileClock(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}
