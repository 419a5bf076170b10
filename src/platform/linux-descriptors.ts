import { readdirSync } from "node:fs";
import { libc } from "./libc.js";

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
const NLINK_AT = 0x10;
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
const NONE: readonly number[] = [];
const SOCKET = Buffer.from("socket:[");
const [ZERO, NINE] = [0x30, 0x39];

/** Those of the wanted sockets, by inode, that process `pid` holds. Nothing where it has exited, or is another user's and not for us to see. */
export function socketsHeldBy(pid: number, wanted: ReadonlyMap<number, unknown>): ReadonlyMap<number, Descriptor> {
  const found = new Map<number, Descriptor>();
  lookThrough(pid, wanted, found);
  for (const task of furtherTablesOf(pid)) lookThrough(task, wanted, found);
  return found;
}

/** Whether that descriptor is, at this moment, the socket with this inode. */
export function isSocketAt({ task, fd }: Descriptor, inode: number): boolean {
  return socketNamed(AT_FDCWD, `/proc/${task}/fd/${fd}`) === inode;
}

/** One thread for each descriptor table that the process has beside that of the thread it is named by. */
function furtherTablesOf(pid: number): readonly number[] {
  if (threadsOf(pid) === 1) return NONE;
  let threads: number[];
  try {
    threads = readdirSync(`/proc/${pid}/task`).map(Number);
  } catch {
    return []; // it has exited
  }
  return threads.filter((thread) => thread !== pid && !shareTable(pid, thread));
}

/** False also where the kernel does not say: then both are looked at. */
function shareTable(one: number, other: number): boolean {
  return SYS_KCMP !== undefined && Number(syscall(SYS_KCMP, one, other, KCMP_FILES, 0, 0)) === 0;
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
  const look = (fd: number): void => {
    const inode = socketNamed(directory, fd < MOST_NAMES ? nameOf(fd) : String(fd));
    if (inode !== undefined && wanted.has(inode)) found.set(inode, { task, fd });
  };
  try {
    if (getdents === undefined) for (const name of readdirSync(path)) look(Number(name));
    else {
      // struct linux_dirent64, whose names but `.` and `..` are numbers. The last answer is empty: one that a signal cut short is not.
      for (let length = read(getdents, directory); length > 0; length = read(getdents, directory)) {
        for (let at = 0; at < length; at += entries.readUInt16LE(at + 16)) {
          const fd = numberAt(entries, at + 19);
          if (fd !== undefined) look(fd);
        }
      }
    }
  } catch {
    // it has exited meanwhile
  } finally {
    close(directory);
  }
}

function read(getdents: (...args: unknown[]) => unknown, directory: number): number {
  return Number(getdents(directory, entries, entries.length));
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
