import { closeSync, constants, fstatSync, readdirSync, readlinkSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { ERRNO, lastErrno, libc } from "./libc.js";
import { cgroupPath } from "./linux-cgroup.js";
import { timesShowWrites } from "./linux-filesystem.js";
import { parseCommandLine, parseStat, parseStatus } from "./linux-proc-text.js";
import type { HeldProgram, OpenExecutable, ProcessHandle, ProcessStatus } from "./platform.js";
import { processGone } from "./process-errors.js";
import { isFileAt } from "./same-file.js";

/*
 * Everything below an open /proc/PID directory is reached with openat: the directory stays bound to the process it was opened for, whoever gets the
 * number later, and unlike /proc/self/fd/N it works for a non-root process that has made itself non-dumpable (D22).
 */

// System calls by number are the same on every architecture from 424 on; pidfd_open is 434.
const SYS_PIDFD_OPEN = 434;
const O_PATH_CLOEXEC_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | 0o2000000;
const O_READ_CLOEXEC = constants.O_RDONLY | 0o2000000;
const POLLIN = 1;
const POLLNVAL = 32;
/** Filesystems whose times and inode numbers another machine or an ordinary user's process makes up: FUSE (and virtiofs), NFS, 9p, SMB, CIFS, SMB2, AFS, Ceph, Coda. */
const UNTRUSTED_TIMES = new Set([
  0x65735546, 0x6969, 0x01021997, 0x517b, 0xff534d42, 0xfe534d42, 0x5346414f, 0x00c36400, 0x73757245,
]);

const AT_FDCWD = -100;

// Straight to the C library, where Node's own calls cost half as much again as the kernel's work: all this is done for every connection.
const openat = libc.func("int openat(int, const char *, int, int)");
const pread = libc.func("long pread(int, void *, size_t, long)");
const close = libc.func("int close(int)");
const readlinkat = libc.func("long readlinkat(int, const char *, void *, size_t)");
const poll = libc.func("int poll(void *, unsigned long, int)");
const fstatfs = libc.func("int fstatfs(int, void *)");
const syscall = libc.func("long syscall(long, long, long)");
/** Absent from old C libraries. */
const statx = optional("int statx(int, const char *, int, unsigned int, void *)");

function optional(declaration: string) {
  try {
    return libc.func(declaration);
  } catch {
    return undefined;
  }
}

const AT_EMPTY_PATH = 0x1000;
const STATX_INO = 0x100;
/** Bytes of `struct statx` up to the end of the device numbers; it has 256. */
const STATX_DEVICE = 136;
const STATX_INODE = 32;

/** One buffer for all reads: nothing here waits, so no two reads are under way at once. */
const scratch = Buffer.alloc(64 * 1024);
const pollfd = Buffer.alloc(8);
const statxBuffer = Buffer.alloc(256);

/** A pidfd for the process that has this number now. Throws ProcessError `process-gone`. */
export function openPidfd(pid: number): number {
  const fd = Number(syscall(SYS_PIDFD_OPEN, pid, 0));
  if (fd < 0) throw processGone(pid);
  return fd;
}

/** Reads at most `most` bytes into `scratch`; -1 where the kernel refuses. */
function readFromStart(fd: number, most: number): number {
  return Number(pread(fd, scratch, most, 0));
}

/** A pidfd becomes readable when its process exits; polled without waiting. */
function pidfdIsAlive(pidfd: number): boolean {
  pollfd.writeInt32LE(pidfd, 0);
  pollfd.writeInt16LE(POLLIN, 4);
  pollfd.writeInt16LE(0, 6);
  let ready: number;
  do {
    ready = poll(pollfd, 1, 0) as number;
    // A signal to this thread (SIGCHLD of a service, SIGWINCH) interrupts even a poll that does not wait, and says nothing of the process.
  } while (ready === -1 && lastErrno() === ERRNO.EINTR);
  return ready === 0 && (pollfd.readInt16LE(6) & POLLNVAL) === 0;
}

/**
 * Holds process `pid` through `pidfd` (which passes into the handle, also when this throws) and its open /proc directory.
 * The directory is known to belong to the pidfd's process because that process is still alive after the directory was opened by number.
 * Throws ProcessError `process-gone`.
 */
export function openLinuxProcess(pid: number, pidfd: number): ProcessHandle {
  const directory = openat(AT_FDCWD, `/proc/${pid}`, O_PATH_CLOEXEC_DIRECTORY, 0) as number;
  if (directory < 0 || !pidfdIsAlive(pidfd)) {
    closeSync(pidfd);
    if (directory >= 0) closeSync(directory);
    throw processGone(pid);
  }
  return new LinuxProcessHandle(pid, pidfd, directory);
}

/** This process never leaves its own. */
let ownUserNamespace: string | undefined;

function namespaceOfOurs(): string {
  try {
    return readlinkSync("/proc/self/ns/user");
  } catch {
    return "none";
  }
}

class LinuxProcessHandle implements ProcessHandle {
  readonly pid: number;
  readonly #pidfd: number;
  readonly #directory: number;
  /** `stat` and `status`, which are read before every answer: opened once, they stay bound to this process as its directory does. */
  readonly #records = new Map<string, number>();
  #closed = false;

  constructor(pid: number, pidfd: number, directory: number) {
    this.pid = pid;
    this.#pidfd = pidfd;
    this.#directory = directory;
  }

  isAlive(): boolean {
    return !this.#closed && pidfdIsAlive(this.#pidfd);
  }

  status(): ProcessStatus {
    const stat = parseStat(this.#readRecord("stat"));
    const credentials = parseStatus(this.#readRecord("status"));
    if (!this.isAlive()) throw processGone(this.pid);
    return {
      parentPid: stat.parentPid,
      startTime: stat.startTime,
      execGeneration: stat.execGeneration,
      uid: credentials.uid,
      gid: credentials.gid,
      supplementaryGids: credentials.supplementaryGids,
    };
  }

  openExecutable(): OpenExecutable | undefined {
    const fd = this.#openat("exe");
    if (fd === undefined) return undefined;
    const path = this.#readlink("exe");
    if (path === undefined) {
      closeSync(fd);
      return undefined;
    }
    const filesystem = filesystemOf(fd);
    return {
      fd,
      path,
      localFilesystem: filesystem !== undefined && !UNTRUSTED_TIMES.has(filesystem),
      timesShowWrites: filesystem !== undefined && timesShowWrites(filesystem),
      isAtItsPath: () => (statx === undefined ? isFileAt(fd, path) : isSameFile(AT_FDCWD, path, fd) === true),
    };
  }

  isExecuting(fd: number): boolean | undefined {
    if (statx === undefined) return this.#executesAsOpened(fd);
    if (this.#closed) throw processGone(this.pid);
    const same = isSameFile(this.#directory, "exe", fd);
    if (same === undefined && !this.isAlive()) throw processGone(this.pid);
    return same;
  }

  #executesAsOpened(fd: number): boolean | undefined {
    const now = this.#openat("exe");
    if (now === undefined) return undefined;
    try {
      const [was, is] = [fstatSync(fd, { bigint: true }), fstatSync(now, { bigint: true })];
      return was.dev === is.dev && was.ino === is.ino;
    } finally {
      closeSync(now);
    }
  }

  commandLine(): readonly string[] {
    return parseCommandLine(this.#read("cmdline"));
  }

  workingDirectory(): string | undefined {
    return this.#readlink("cwd");
  }

  cgroup(): string | undefined {
    try {
      return cgroupPath(this.#readRecord("cgroup"));
    } catch (thrown) {
      if (this.isAlive()) return undefined; // a kernel without cgroups
      throw thrown;
    }
  }

  userNamespace(): "ours" | "another" | undefined {
    ownUserNamespace ??= namespaceOfOurs();
    if (ownUserNamespace === "none") return "ours"; // a kernel without user namespaces
    const found = this.#readlink("ns/user");
    if (found === undefined) return undefined;
    return found === ownUserNamespace ? "ours" : "another";
  }

  codeSignature(): undefined {
    return undefined; // macOS only
  }

  childPids(): readonly number[] | undefined {
    const before = this.#threads();
    const children: number[] = [];
    for (const thread of before) {
      const text = this.#readList(`task/${thread}/children`);
      if (text === undefined) return undefined;
      children.push(...text.split(" ").filter(Boolean).map(Number));
    }
    // A thread that ends hands its children to another one, which may have been read already.
    const same = isDeepStrictEqual(before, this.#threads());
    return before.length > 0 && same ? children : undefined;
  }

  seesOurFiles(): boolean {
    return this.#readlink("root") === "/" && this.#readlink("ns/mnt") === readlinkSync("/proc/self/ns/mnt");
  }

  holdProgram(): HeldProgram | undefined {
    // An open `maps` holds the memory image it was opened for; once that image has no more users (execve, exit) reading gives nothing.
    const fd = this.#openat("maps");
    return fd === undefined ? undefined : new LinuxHeldProgram(fd);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    close(this.#pidfd);
    close(this.#directory);
    for (const fd of this.#records.values()) close(fd);
  }

  /** Undefined where the kernel refuses. Throws ProcessError `process-gone`. */
  #openat(name: string): number | undefined {
    if (this.#closed) throw processGone(this.pid);
    const fd = openat(this.#directory, name, O_READ_CLOEXEC, 0) as number;
    if (fd >= 0) return fd;
    const errno = lastErrno();
    if (errno === ERRNO.EACCES || errno === ERRNO.EPERM || this.isAlive()) return undefined;
    throw processGone(this.pid);
  }

  /** A file that the kernel gives whole in one read. */
  #readRecord(name: string): string {
    const fd = this.#records.get(name) ?? this.#openat(name);
    if (this.#closed || fd === undefined) throw processGone(this.pid);
    this.#records.set(name, fd);
    // From the beginning: the kernel makes the text anew.
    const length = readFromStart(fd, scratch.length);
    if (length < 0) throw processGone(this.pid);
    return scratch.toString("latin1", 0, length);
  }

  #read(name: string): Buffer {
    const fd = this.#openat(name);
    if (fd === undefined) return Buffer.alloc(0);
    // A text that fits comes in one piece.
    const length = readFromStart(fd, scratch.length);
    close(fd);
    if (length < 0) throw processGone(this.pid);
    return scratch.subarray(0, length);
  }

  /** Numbers of its threads. The directory is read by number, so the process must still be alive afterwards to be the one that was asked about. */
  #threads(): readonly string[] {
    try {
      const threads = readdirSync(`/proc/${this.pid}/task`).sort();
      return this.isAlive() ? threads : [];
    } catch {
      return [];
    }
  }

  /** Undefined if there is no such file, or it is too long to be read in one go. */
  #readList(name: string): string | undefined {
    const fd = this.#openat(name);
    if (fd === undefined) return undefined;
    try {
      const length = readFromStart(fd, scratch.length);
      // Less than nothing where that thread has ended.
      return length >= 0 && length < scratch.length ? scratch.toString("latin1", 0, length) : undefined;
    } finally {
      closeSync(fd);
    }
  }

  #readlink(name: string): string | undefined {
    if (this.#closed) throw processGone(this.pid);
    const length = Number(readlinkat(this.#directory, name, scratch, scratch.length));
    if (length >= 0) return scratch.toString("utf8", 0, length);
    if (this.isAlive()) return undefined;
    throw processGone(this.pid);
  }
}

class LinuxHeldProgram implements HeldProgram {
  readonly #fd: number;
  #current = true;

  constructor(fd: number) {
    this.#fd = fd;
  }

  isCurrent(): boolean {
    if (!this.#current) return false;
    // ESRCH and the like: whatever keeps the kernel from answering, the program is no longer proven to be the same.
    if (readFromStart(this.#fd, 64) <= 0) this.close();
    return this.#current;
  }

  close(): void {
    if (!this.#current) return;
    this.#current = false;
    close(this.#fd);
  }
}

/** Whether `name` leads to the file open at `fd`, without opening it; undefined where it leads nowhere. */
function isSameFile(directory: number, name: string, fd: number): boolean | undefined {
  if (statx?.(directory, name, 0, STATX_INO, statxBuffer) !== 0) return undefined;
  const inode = statxBuffer.readBigUInt64LE(STATX_INODE);
  const device = statxBuffer.readBigUInt64LE(STATX_DEVICE);
  if (statx(fd, "", AT_EMPTY_PATH, STATX_INO, statxBuffer) !== 0) return false;
  return statxBuffer.readBigUInt64LE(STATX_INODE) === inode && statxBuffer.readBigUInt64LE(STATX_DEVICE) === device;
}

function filesystemOf(fd: number): number | undefined {
  return (fstatfs(fd, scratch) as number) === 0 ? scratch.readUInt32LE(0) : undefined;
}
