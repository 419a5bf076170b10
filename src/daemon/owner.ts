import { type Administration, mayAdminister } from "../attestation/administrator.js";
import type { Adopters } from "../attestation/adopters.js";
import type { LaunchRegistry } from "../attestation/launches.js";
import type { Platform } from "../platform/platform.js";

export interface OwnerOptions {
  readonly platform: Platform;
  readonly launches: LaunchRegistry;
  readonly adopters: Pick<Adopters, "isAdopter">;
  /** Whether process `pid` is inside the sandbox of a launch now. */
  readonly isSandboxed: (pid: number) => boolean;
}

export const INSIDE_A_SANDBOX: Administration = { allowed: false, reason: "it runs inside the sandbox of a launch" };

/** Whether a process is shown to be the owner's own, and no agent's (D25). */
export function administrationOf(
  peer: { readonly pid: number; readonly uid: number; readonly startTime: bigint },
  { platform, launches, adopters, isSandboxed }: OwnerOptions,
): Administration {
  // Asked first: an orphan inside has parents outside that no agent started.
  if (isSandboxed(peer.pid)) return INSIDE_A_SANDBOX;
  return mayAdminister(peer, {
    ownerUid: process.geteuid?.() ?? peer.uid,
    isAgent: (each, since) => launches.isAgent(each, since),
    isAdopter: (each, since) => adopters.isAdopter(each, since),
    firstLaunchStartTime: launches.firstLaunchStartTime,
    platform,
  });
}

/** The same of the process at the other end of a Unix socket, by the kernel's word. */
export function administrationBehind(fd: number, options: OwnerOptions): Administration {
  const credentials = options.platform.peerOfUnixSocket(fd);
  const handle = options.platform.openProcess(credentials);
  try {
    const { startTime } = handle.status();
    return administrationOf({ pid: credentials.pid, uid: credentials.uid, startTime }, options);
  } finally {
    handle.close();
  }
}
