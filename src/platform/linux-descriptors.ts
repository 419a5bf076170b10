import { readdirSync } from "node:fs";
import { ERRNO, lastErrno, libc } from "./libc.js";

/*
 * Which sockets a process holds, by the descriptor tables of its threads: they share one as a rule, but a thread may have its own (unshare(2) with
 * CLONE_FILES), and outlive the one that the process is named by. `/proc/TID/fd` is a thread's table, also where TID is not the process's number.
 */

/** Where a socket was found. */
export interface Descriptor {
  /** The thread whose table it is. */
  readonly task: number;
  readonly fd: number;
}

// A search looks at every process of the machine: a few calls each, straight to the C library, with no exception for each process that is not for us to see.
const open = libc.func("int open(const char *, int, int)");
const close = libc.func("int close(int)");
const readlinkat = libc.func("long readlinkat(int, const char *, void *, size_t)");
const statx = firstOf("int statx(int, const char *, int, unsigned int, void *)");
const syscall = libc.func("long syscall(long, long, long, long, long, long)");
/** glibc's name from 2.30 on, and musl's. */
const getdents = firstOf("long getdents64(int, void *, size_t)", "long getdents(int, void *, size_t)");

function firstOf(...declarations: readonly string[]) {
  for (const declaration of declarations) {
    try {
      return libc.func(declaration);
    } catch {
      // this C library has no such name
    }
  }
  return undefined;
}

const DIRECTORY_CLOEXEC = 0o200000 | 0o2000000;
const AT_FDCWD = -100;
const STATX_NLINK = 0x4;
const STATX_SIZE = 0x200;
const NLINK_AT = 0x10;
const SIZE_AT = 0x28;
const KCMP_FILE = 0;
const KCMP_FILES = 2;
/** Older than the numbers that all architectures share. */
const SYS_KCMP = new Map([
  ["x64", 312],
  ["arm64", 272],
  ["riscv64", 272],
  ["loong64", 272],
]).get(process.arch);

const entries = Buffer.alloc(32 * 1024);
const link = Buffer.alloc(64);
const status = Buffer.alloc(256);
/** Names of descriptors, made once. */
const names: string[] = [];
const nameOf = (fd: number): string => {
  names[fd] ??= String(fd);
  return names[fd];
};
const MOST_NAMES = 4096;
const SOCKET = Buffer.from("socket:[");
const [ZERO, NINE] = [0x30, 0x39];

/** Those of the wanted sockets, by inode, that process `pid` holds. Nothing where it has exited, or is another user's and not for us to see. */
export function socketsHeldBy(pid: number, wanted: ReadonlyMap<number, unknown>): ReadonlyMap<number, Descriptor> {
  const found = new Map<number, Descriptor>();
  for (const task of tablesOf(pid)) {
    lookThrough(task, wanted, found);
    if (found.size === wanted.size) break;
  }
  return found;
}

/** Whether that descriptor is, at this moment, the socket with this inode. */
export function isSocketAt({ task, fd }: Descriptor, inode: number): boolean {
  return socketNamed(AT_FDCWD, `/proc/${task}/fd/${fd}`) === inode;
}

/**
 * Whether process `pid` certainly does not hold what is open at `reference`, by comparing the kernel's own addresses of open files (kcmp(2)): a third of the
 * work of reading a name for each descriptor. False where that cannot be said: then read the names.
 */
export function certainlyLacks(pid: number, reference: Descriptor, inode: number): boolean {
  if (!canCompare()) return false;
  // The first before the others are asked for: most processes of other users end here.
  if (!tableLacks(pid, reference)) return false;
  for (const task of tablesOf(pid)) if (task !== pid && !tableLacks(task, reference)) return false;
  // What was compared with was the socket all along, unless its holder let go of it; a number that is used again is another file.
  return isSocketAt(reference, inode);
}

function tableLacks(task: number, reference: Descriptor): boolean {
  let count: number | undefined;
  let seen = 0;
  for (let fd = 0; count === undefined || seen < count; fd += 1) {
    const order = compare(KCMP_FILE, reference.task, task, reference.fd, fd);
    if (order === 0) return false;
    if (order > 0) seen += 1;
    else if (lastErrno() !== ERRNO.EBADF) return false; // not for us to see, or gone
    count ??= descriptorsIn(task);
    // Gone, or with descriptors far apart: their names are read sooner.
    if (count === undefined || fd > 2 * count + 64) return false;
  }
  return true;
}

/** Below 0 where the kernel refuses; 0 if both are the same. */
function compare(kind: number, one: number, other: number, oneFd = 0, otherFd = 0): number {
  return SYS_KCMP === undefined ? -1 : Number(syscall(SYS_KCMP, one, other, kind, oneFd, otherFd));
}

let comparable: boolean | undefined;

/** From Linux 6.2 on the size of /proc/PID/fd is the number of descriptors; a sandbox may forbid kcmp. */
function canCompare(): boolean {
  const self = process.pid;
  comparable ??= (descriptorsIn(self) ?? 0) > 0 && compare(KCMP_FILES, self, self) === 0;
  return comparable;
}

function descriptorsIn(task: number): number | undefined {
  if (statx === undefined || statx(AT_FDCWD, `/proc/${task}/fd`, 0, STATX_SIZE, status) !== 0) return undefined;
  return status.readUInt32LE(SIZE_AT);
}

/** One thread for each descriptor table that the process has. */
function tablesOf(pid: number): readonly number[] {
  if (threadsOf(pid) === 1) return [pid];
  let threads: number[];
  try {
    threads = readdirSync(`/proc/${pid}/task`).map(Number);
  } catch {
    return []; // it has exited
  }
  return [pid, ...threads.filter((thread) => thread !== pid && compare(KCMP_FILES, pid, thread) !== 0)];
}

function threadsOf(pid: number): number | undefined {
  if (statx === undefined || statx(AT_FDCWD, `/proc/${pid}/task`, 0, STATX_NLINK, status) !== 0) return undefined;
  return status.readUInt32LE(NLINK_AT) - 2;
}

/** Adds to `found` those of the wanted sockets that are in the table of this thread. */
function lookThrough(task: number, wanted: ReadonlyMap<number, unknown>, found: Map<number, Descriptor>): void {
  const path = `/proc/${task}/fd`;
  const directory = open(path, DIRECTORY_CLOEXEC, 0) as number;
  if (directory < 0) return;
  const visit = (fd: number): void => {
    const inode = socketNamed(directory, fd < MOST_NAMES ? nameOf(fd) : String(fd));
    if (inode !== undefined && wanted.has(inode)) found.set(inode, { task, fd });
  };
  try {
    if (getdents === undefined) for (const name of readdirSync(path)) visit(Number(name));
    else list(getdents, directory, visit);
  } catch {
    // it has exited meanwhile
  } finally {
    close(directory);
  }
}

/** Calls `visit` with every descriptor of an open /proc/TID/fd: struct linux_dirent64, whose names but `.` and `..` are numbers. */
function list(read: (...args: unknown[]) => unknown, directory: number, visit: (fd: number) => void): void {
  for (;;) {
    const length = Number(read(directory, entries, entries.length));
    if (length <= 0) return;
    for (let at = 0; at < length; at += entries.readUInt16LE(at + 16)) {
      const fd = numberAt(entries, at + 19);
      if (fd !== undefined) visit(fd);
    }
  }
}

/** The inode of the socket that a descriptor's link names; undefined for every other file, and for one that was closed meanwhile. */
function socketNamed(directory: number, name: string): number | undefined {
  const length = Number(readlinkat(directory, name, link, link.length));
  if (length <= SOCKET.length || link.compare(SOCKET, 0, SOCKET.length, 0, SOCKET.length) !== 0) return undefined;
  return numberAt(link, SOCKET.length);
}

/** The decimal number that begins there. */
function numberAt(bytes: Buffer, start: number): number | undefined {
  let number = 0;
  let at = start;
  for (; ; at += 1) {
    const digit = bytes[at] ?? 0;
    if (digit < ZERO || digit > NINE) break;
    number = number * 10 + digit - ZERO;
  }
  return at === start ? undefined : number;
}
