import { closeSync, openSync, readFileSync, readlinkSync, readSync, statSync } from "node:fs";
import { lastErrno, libc, SystemCallError } from "./libc.js";
import { mountAt } from "./linux-proc-text.js";
import { openPidfd } from "./linux-process.js";
import type { Confinement, NetworkView } from "./platform.js";
import { processGone } from "./process-errors.js";

const SYS_PIDFD_GETFD = 438;
const NAMESPACES = ["user", "mnt", "pid", "net", "ipc"] as const;
const CHUNK = 16 * 1024;

const syscall = libc.func("long syscall(long, long, long, long)");

export function networkOf(pid: number): string | undefined {
  try {
    return namespaceOf(pid, "net");
  } catch {
    return undefined; // it has exited, or is another user's
  }
}

/** See Platform. What is read through the held descriptors is made anew at every read from their beginning. */
export function openNetwork(pid: number): NetworkView {
  const tables = new Map<4 | 6, number>();
  const close = (): void => {
    for (const fd of tables.values()) closeSync(fd);
    tables.clear();
  };
  try {
    tables.set(4, openSync(`/proc/${pid}/net/tcp`, "r"));
    try {
      tables.set(6, openSync(`/proc/${pid}/net/tcp6`, "r"));
    } catch {
      // a kernel without IPv6
    }
  } catch (cause) {
    close();
    throw processGone(pid, cause);
  }
  return {
    table(version) {
      const fd = tables.get(version);
      return fd === undefined ? "" : readFromStart(fd);
    },
    close,
  };
}

function readFromStart(fd: number): string {
  let text = "";
  const chunk = Buffer.alloc(CHUNK);
  for (let position = 0; ; ) {
    const length = readSync(fd, chunk, 0, CHUNK, position);
    if (length === 0) return text;
    text += chunk.toString("latin1", 0, length);
    position += length;
  }
}

/** The kernel asks for what ptrace would need: the same user, and for a process in a user namespace of ours no more than that. */
export function takeDescriptor(pid: number, fd: number): number {
  const pidfd = openPidfd(pid);
  try {
    const taken = Number(syscall(SYS_PIDFD_GETFD, pidfd, fd, 0));
    if (taken < 0) throw new SystemCallError("pidfd_getfd", lastErrno());
    return taken;
  } finally {
    closeSync(pidfd);
  }
}

export function confinementOf(pid: number): Confinement {
  try {
    const apart = NAMESPACES.filter((kind) => namespaceOf(pid, kind) !== namespaceOf("self", kind));
    const status = readFileSync(`/proc/${pid}/status`, "latin1");
    const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8");
    return {
      apart: new Set(apart),
      noNewPrivileges: /^NoNewPrivs:\s*1$/m.test(status),
      powerless: ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].every((set) =>
        new RegExp(`^${set}:\\s*0+$`, "m").test(status),
      ),
      filtered: /^Seccomp:\s*2$/m.test(status),
      sees: (path) => isSameFile(path, `/proc/${pid}/root${path}`),
      findsReadOnly: (path) => mountAt(mounts, path)?.readOnly === true,
    };
  } catch (cause) {
    throw processGone(pid, cause);
  }
}

function namespaceOf(pid: number | "self", kind: string): string {
  return readlinkSync(`/proc/${pid}/ns/${kind}`);
}

function isSameFile(a: string, b: string): boolean {
  try {
    const [one, other] = [statSync(a, { bigint: true }), statSync(b, { bigint: true })];
    return one.dev === other.dev && one.ino === other.ino;
  } catch {
    return false; // not there on one of the two sides
  }
}
