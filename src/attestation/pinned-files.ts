import { type BigIntStats, statSync } from "node:fs";
import { sha256OfFile } from "./file-digest.js";

/** A file of a launch, with what tells whether it was touched since its digest was made. */
export interface PinnedFile {
  /** Absolute. */
  readonly path: string;
  /** Lower-case hex. */
  readonly sha256: string;
  readonly mark: FileMark;
}

/** Which file a path led to, and when it was last written: the kernel sets `ctime`, nobody else can. */
export interface FileMark {
  readonly device: bigint;
  readonly inode: bigint;
  readonly size: bigint;
  readonly changedAt: bigint;
}

/** Must be taken before the digest is made. Undefined where there is no such file. */
export function markOf(path: string): FileMark | undefined {
  let stats: BigIntStats;
  try {
    stats = statSync(path, { bigint: true });
  } catch {
    return undefined;
  }
  return { device: stats.dev, inode: stats.ino, size: stats.size, changedAt: stats.ctimeNs };
}

/** Path of the first file that was touched since it was marked. */
export function changedFile(files: readonly PinnedFile[]): string | undefined {
  return files.find(({ path, mark }) => !sameMark(markOf(path), mark))?.path;
}

/**
 * Path of the first file that does not hold what was pinned, or was touched since it was marked. A page that was mapped for writing and dirty
 * before changes without a trace in the times, so the digest is made again as well.
 */
export async function driftedFile(files: readonly PinnedFile[]): Promise<string | undefined> {
  for (const { path, sha256 } of files) {
    const found = await sha256OfFile(path).catch(() => undefined);
    if (found !== sha256) return path;
  }
  return changedFile(files);
}

function sameMark(found: FileMark | undefined, mark: FileMark): boolean {
  return (
    found !== undefined &&
    found.device === mark.device &&
    found.inode === mark.inode &&
    found.size === mark.size &&
    found.changedAt === mark.changedAt
  );
}
