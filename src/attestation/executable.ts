import { closeSync } from "node:fs";
import type { OpenExecutable, ProcessHandle } from "../platform/platform.js";
import { processChanged } from "./attestation-error.js";
import type { ExecutableDigests } from "./hash-cache.js";

/** A process's executable, opened once and hashed through that descriptor. */
export interface AttestedExecutable {
  readonly path: string | undefined;
  /** Lower-case hex. */
  readonly sha256: string | undefined;
  /** False on network and FUSE filesystems, whose server answers what it likes. */
  readonly localFilesystem: boolean;
  /** Why path or digest are absent. */
  readonly missing: { readonly exePath?: string; readonly exeSha256?: string };
}

/** Path and digest of the executable, checked after hashing to be still the one that runs. Throws AttestationError. */
export async function executableOf(handle: ProcessHandle, digests: ExecutableDigests): Promise<AttestedExecutable> {
  const opened = handle.openExecutable();
  if (opened === undefined) return absent("the kernel does not let us see this process's executable");
  try {
    const sha256 = await digests.digestOf(opened);
    requireSameExecutable(handle, opened);
    // Asked last: who has entered a user namespace of his own may name any file there (prctl PR_SET_MM_MAP), and does not come out again.
    if (handle.userNamespace() !== "ours") {
      return absent("the process lives in a user namespace of its own, where it may name any file as its executable");
    }
    const path = opened.isAtItsPath() ? opened.path : undefined;
    return {
      path,
      sha256,
      localFilesystem: opened.localFilesystem,
      missing: {
        ...(path === undefined && {
          exePath: `${opened.path} is another file or none as seen from here (replaced, or another mount namespace)`,
        }),
        ...(sha256 === undefined && { exeSha256: digests.absence(opened) }),
      },
    };
  } finally {
    closeSync(opened.fd);
  }
}

function absent(reason: string): AttestedExecutable {
  return { path: undefined, sha256: undefined, localFilesystem: true, missing: { exePath: reason, exeSha256: reason } };
}

function requireSameExecutable(handle: ProcessHandle, hashed: OpenExecutable): void {
  const same = handle.isExecuting(hashed.fd);
  if (same === undefined) throw processChanged(handle.pid, "its executable can no longer be seen");
  if (!same) throw processChanged(handle.pid, "it executes another file");
}
