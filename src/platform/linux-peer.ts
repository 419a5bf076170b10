import { ERRNO, errnoName, lastErrno, libc } from "./libc.js";
import { openPidfd } from "./linux-process.js";
import type { PeerCredentials } from "./platform.js";
import { ProcessError, processGone } from "./process-errors.js";

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_PEERPIDFD = 77;

const getsockopt = libc.func("int getsockopt(int, int, int, void *, void *)");
const value = Buffer.alloc(12);
const length = Buffer.alloc(4);

/** SO_PEERCRED and SO_PEERPIDFD (Linux ≥ 6.5; before that pidfd_open by number, and the result says so). Throws ProcessError. */
export function peerOfUnixSocket(fd: number): PeerCredentials {
  const failed = option(fd, SO_PEERCRED, 12);
  if (failed !== 0) {
    throw new ProcessError("peer-unknown", `the kernel does not say who is connected: ${errnoName(failed)}`);
  }
  const pid = value.readInt32LE(0);
  const uid = value.readUInt32LE(4);
  const gid = value.readUInt32LE(8);
  if (pid <= 0) {
    throw new ProcessError("peer-unknown", "the caller's process is not visible from here", {
      hint: "The caller runs in another PID namespace (a container). Run agentid in the same one.",
    });
  }
  const unsupported = option(fd, SO_PEERPIDFD, 4);
  if (unsupported === 0) return { pid, uid, gid, pidfd: value.readInt32LE(0), pidfdFromSocket: true };
  if (unsupported === ERRNO.ENOPROTOOPT) return { pid, uid, gid, pidfd: openPidfd(pid), pidfdFromSocket: false };
  // ESRCH, EINVAL: the peer exited before we asked.
  throw processGone(pid);
}

/** The errno of getsockopt, 0 when `value` holds the answer. */
function option(fd: number, name: number, size: number): number {
  length.writeUInt32LE(size);
  return (getsockopt(fd, SOL_SOCKET, name, value, length) as number) === 0 ? 0 : lastErrno();
}
