import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
} from "node:fs";
import { lastErrno, libc, SystemCallError } from "./libc.js";
import { mountAt } from "./linux-proc-text.js";
import { openPidfd } from "./linux-process.js";
import type { Confinement, NetworkView } from "./platform.js";
import { processGone } from "./process-errors.js";

const SYS_OPENAT2 = 437;
const SYS_PIDFD_GETFD = 438;
const O_PATH_CLOEXEC = 0o10000000 | 0o2000000;
const RESOLVE_IN_ROOT = 0x10;
const NAMESPACES = ["user", "mnt", "pid", "net", "ipc"] as const;
const CHUNK = 16 * 1024;
const MOST_TRIES = 5;

const syscall = libc.func("long syscall(long, long, long, long)");
const openat2 = libc.func("syscall", "long", ["long", "int", "str", "void *", "size_t"]);

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

export function isInOurPidNamespace(pid: number): boolean {
  try {
    return namespaceOf(pid, "pid") === namespaceOf("self", "pid");
  } catch {
    return false;
  }
}

export function confinementOf(pid: number): Confinement {
  try {
    const apart = NAMESPACES.filter((kind) => namespaceOf(pid, kind) !== namespaceOf("self", kind));
    const threads = statusOfThreads(pid);
    const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8");
    return {
      apart: new Set(apart),
      userNamespace: namespaceOf(pid, "user"),
      noNewPrivileges: threads.every((status) => /^NoNewPrivs:\s*1$/m.test(status)),
      powerless: threads.every(isPowerless),
      filtered: threads.every((status) => /^Seccomp:\s*2$/m.test(status)),
      sees: (path) => isSameFile(path, pid),
      findsReadOnly: (path) => mountAt(mounts, path)?.readOnly === true,
    };
  } catch (cause) {
    throw processGone(pid, cause);
  }
}

function namespaceOf(pid: number | "self", kind: string): string {
  return readlinkSync(`/proc/${pid}/ns/${kind}`);
}

/**
 * Rights belong to threads, and any of them may execute the next program. A thread that is begun while the others are read was begun by one of them, so one
 * that was not listed before is somebody who was not looked at. Throws where there is one.
 */
function statusOfThreads(pid: number): readonly string[] {
  const tasks = `/proc/${pid}/task`;
  for (let tries = 1; ; tries += 1) {
    try {
      const before = new Set(readdirSync(tasks));
      const read = [...before].map((thread) => readFileSync(`${tasks}/${thread}/status`, "latin1"));
      if (readdirSync(tasks).every((thread) => before.has(thread))) return read;
      throw new Error("it began a thread meanwhile");
    } catch (thrown) {
      // An honest program begins and ends a thread now and then.
      if (tries === MOST_TRIES) throw thrown;
    }
  }
}

function isPowerless(status: string): boolean {
  return ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].every((set) =>
    new RegExp(`^${set}:\\s*0+$`, "m").test(status),
  );
}

function isSameFile(path: string, pid: number): boolean {
  try {
    const [ours, theirs] = [statSync(path, { bigint: true }), statInside(path, pid)];
    return ours.dev === theirs.dev && ours.ino === theirs.ino;
  } catch {
    return false; // not there on one of the two sides
  }
}

/** What `path` leads process `pid` to. Below /proc/PID/root alone an absolute link would lead on in our root instead of in its own. */
function statInside(path: string, pid: number): BigIntStats {
  const root = openSync(`/proc/${pid}/root`, O_PATH_CLOEXEC | constants.O_DIRECTORY);
  try {
    const how = Buffer.alloc(24);
    how.writeBigUInt64LE(BigInt(O_PATH_CLOEXEC), 0);
    how.writeBigUInt64LE(BigInt(RESOLVE_IN_ROOT), 16);
    const fd = Number(openat2(SYS_OPENAT2, root, path, how, how.length));
    if (fd < 0) throw new SystemCallError("openat2", lastErrno());
    try {
      return fstatSync(fd, { bigint: true });
    } finally {
      closeSync(fd);
    }
  } finally {
    closeSync(root);
  }
}
