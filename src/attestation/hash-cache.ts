import { fstatSync } from "node:fs";
import { sha256OfDescriptor } from "./file-digest.js";

/** Digests of executables that the kernel runs. */
export interface ExecutableDigests {
  /**
   * Lower-case hex SHA-256 of the executable open at `fd`. Undefined when the file changed while it was hashed.
   * `fd` stays the caller's and must stay open until the promise settles.
   */
  digestOf(executable: { readonly fd: number; readonly localFilesystem: boolean }): Promise<string | undefined>;
}

/** A file changed within this time before it was hashed could change again without its ctime showing it (coarse kernel clocks). */
const SETTLED_NS = 2_000_000_000n;
const MAX_ENTRIES = 512;

/**
 * Caches by device, inode, size, mtime and ctime (D6): only for what the kernel has mapped as an executable, only on local filesystems, and only
 * when the last change is more than 2 s older than the hash. Requests for one file at the same time share one hash. Times are nanoseconds.
 */
export function executableDigests(now: () => bigint = () => BigInt(Date.now()) * 1_000_000n): ExecutableDigests {
  const known = new Map<string, string>();
  const underWay = new Map<string, Promise<string | undefined>>();

  async function hash(fd: number, version: string): Promise<string | undefined> {
    const digest = await sha256OfDescriptor(fd);
    return versionOf(fd).version === version ? digest : undefined;
  }

  return {
    async digestOf({ fd, localFilesystem }) {
      const { version, changedAt } = versionOf(fd);
      const cached = localFilesystem ? known.get(version) : undefined;
      if (cached !== undefined) return cached;
      const shared = underWay.get(version);
      if (shared !== undefined) {
        // The other request's reading may fail for reasons of its own, or the file changed: only our own reading counts then.
        const digest = await shared.catch(() => undefined);
        if (digest !== undefined) return digest;
      }
      const settled = now() - changedAt > SETTLED_NS;
      const hashing = hash(fd, version).finally(() => underWay.delete(version));
      underWay.set(version, hashing);
      const digest = await hashing;
      if (digest !== undefined && settled && localFilesystem) remember(known, version, digest);
      return digest;
    },
  };
}

function versionOf(fd: number): { version: string; changedAt: bigint } {
  const { dev, ino, size, mtimeNs, ctimeNs } = fstatSync(fd, { bigint: true });
  return { version: `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`, changedAt: ctimeNs };
}

function remember(known: Map<string, string>, version: string, digest: string): void {
  if (known.size >= MAX_ENTRIES) {
    const oldest = known.keys().next();
    if (!oldest.done) known.delete(oldest.value);
  }
  known.set(version, digest);
}
