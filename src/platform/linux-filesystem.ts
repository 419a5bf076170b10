import { release } from "node:os";

/**
 * Filesystems on which every change of a file's bytes shows in its times at once, also one through a shared mapping, and read-only ones: ext2 to ext4, XFS,
 * btrfs, F2FS; squashfs, EROFS, ISO 9660. Not tmpfs (before Linux 6.18 a mapping changes it unseen), ZFS (its times follow at write-back) and overlayfs
 * (whose upper layer may be any of these).
 */
const TIMES_SHOW_WRITES = new Set([0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x73717368, 0xe0f5e1e2, 0x9660]);

/** Whether the times of a file that is being executed show every change of its bytes, on a filesystem of this type (`statfs`) and by this kernel. */
export function timesShowWrites(filesystem: number): boolean {
  return TIMES_SHOW_WRITES.has(filesystem) && WRITERS_ARE_KEPT_OUT;
}

/**
 * Whether this kernel refuses to write to a file that is being executed (ETXTBSY), as all do except 6.11 to 6.11.10 and 6.12 to 6.12.1. There, a mapping made
 * before the execve could change the bytes afterwards without the times showing it.
 */
export function writersAreKeptOut(kernelRelease: string): boolean {
  const [, major, minor, patch = "0"] = /^(\d+)\.(\d+)(?:\.(\d+))?/.exec(kernelRelease) ?? [];
  const lastOpen = major === "6" ? { "11": 10, "12": 1 }[minor ?? ""] : undefined;
  return major !== undefined && (lastOpen === undefined || Number(patch) > lastOpen);
}

const WRITERS_ARE_KEPT_OUT = writersAreKeptOut(release());
