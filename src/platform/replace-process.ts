import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { ERRNO, lastErrno, libc } from "./libc.js";

/**
 * The system calls with which a Node process turns itself into another program, and undoes what Node did to itself at start (node.cc, PlatformInit):
 * SIGPIPE and SIGXFSZ ignored, the descriptor limit raised, all inherited descriptors marked close-on-exec. execve keeps all three.
 */

const F_GETFD = 1;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const FD_CLOEXEC = 1;
const IS_DARWIN = process.platform === "darwin";
const O_NONBLOCK = IS_DARWIN ? 4 : 0o4000;
const SIG_SETMASK = IS_DARWIN ? 3 : 2;
const RLIMIT_NOFILE = IS_DARWIN ? 8 : 7;
const LAST_SIGNAL = IS_DARWIN ? 31 : 64;

// Variadic in C: declared so, because Apple silicon passes variadic arguments elsewhere.
const fcntl = libc.func("int fcntl(int, int, ...)");
const signal = libc.func("void *signal(int, void *)");
const sigprocmask = libc.func("int sigprocmask(int, void *, void *)");
const getrlimit = libc.func("int getrlimit(int, void *)");
const setrlimit = libc.func("int setrlimit(int, void *)");
const execve = libc.func("int execve(const char *, const char **, const char **)");

/** What must be as it was when the command starts. Taken before anything reads or prints. */
export interface InheritedState {
  /** Status flags (O_NONBLOCK …) of descriptors 0, 1 and 2; undefined where one is closed. */
  readonly statusFlags: readonly (number | undefined)[];
  /** Descriptors from 3 on that came from our parent and not from Node. */
  readonly descriptors: readonly number[];
  /** Soft limit on open files of our parent, which is what ours was before Node raised it; undefined where the system does not tell. */
  readonly openFiles: bigint | undefined;
}

export function inheritedState(): InheritedState {
  return {
    statusFlags: [0, 1, 2].map((fd) => {
      const flags = fcntl(fd, F_GETFL, "int", 0) as number;
      return flags < 0 ? undefined : flags;
    }),
    descriptors: inheritedDescriptors(),
    openFiles: openFilesOf(process.ppid),
  };
}

/** Undoes what Node did. Signals go to their defaults with none blocked; the terminal's settings are never touched, so there is nothing to undo. */
export function restoreInherited(state: InheritedState): void {
  for (let number = 1; number <= LAST_SIGNAL; number += 1) signal(number, null);
  sigprocmask(SIG_SETMASK, Buffer.alloc(128), null);
  state.statusFlags.forEach((flags, fd) => {
    if (flags === undefined) return;
    const now = fcntl(fd, F_GETFL, "int", 0) as number;
    if ((now & O_NONBLOCK) !== (flags & O_NONBLOCK)) fcntl(fd, F_SETFL, "int", flags);
  });
  for (const fd of [0, 1, 2, ...state.descriptors]) {
    const flags = fcntl(fd, F_GETFD, "int", 0) as number;
    if (flags >= 0) fcntl(fd, F_SETFD, "int", flags & ~FD_CLOEXEC);
  }
  if (state.openFiles !== undefined) lowerOpenFiles(state.openFiles);
}

export type ExecFailure = "not-found" | "not-executable";

/** execve(2): on success this never returns. */
export function replaceProcess(
  path: string,
  argv: readonly string[],
  environment: Readonly<Record<string, string>>,
): { failure: ExecFailure; errno: number } {
  const pairs = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  execve(path, [...argv, null], [...pairs, null]);
  const errno = lastErrno();
  return { failure: errno === ERRNO.ENOENT || errno === ERRNO.ENOTDIR ? "not-found" : "not-executable", errno };
}

/**
 * Node opens event and pipe descriptors for itself. What is neither an anonymous inode nor a pipe with both ends here came from the parent
 * (`3<file`, a jobserver, sockets of a service manager). Must run before anything else opens descriptors.
 */
function inheritedDescriptors(): number[] {
  if (IS_DARWIN) return [];
  const links = new Map<number, string>();
  for (const name of readdirSync("/proc/self/fd")) {
    try {
      links.set(Number(name), readlinkSync(`/proc/self/fd/${name}`));
    } catch {
      // the descriptor of this very listing
    }
  }
  const ends = new Map<string, number>();
  for (const link of links.values()) ends.set(link, (ends.get(link) ?? 0) + 1);
  return [...links]
    .filter(
      ([fd, link]) => fd > 2 && !link.startsWith("anon_inode:") && !(link.startsWith("pipe:") && ends.get(link) !== 1),
    )
    .filter(([, link]) => link !== "/dev/null")
    .map(([fd]) => fd);
}

function openFilesOf(pid: number): bigint | undefined {
  if (IS_DARWIN) return undefined;
  try {
    const line = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync(`/proc/${pid}/limits`, "latin1"));
    return line?.[1] === undefined || line[1] === "unlimited" ? undefined : BigInt(line[1]);
  } catch {
    return undefined; // the parent has exited or is another user's: the limit stays as it is
  }
}

function lowerOpenFiles(soft: bigint): void {
  const limit = Buffer.alloc(16);
  if ((getrlimit(RLIMIT_NOFILE, limit) as number) !== 0) return;
  if (soft >= limit.readBigUInt64LE(0)) return;
  limit.writeBigUInt64LE(soft, 0);
  setrlimit(RLIMIT_NOFILE, limit);
}
