import type { InheritedState } from "./inherited-state.js";
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

/** Undoes what Node did. Signals go to their defaults with none blocked; the terminal's settings are never touched, so there is nothing to undo. */
export function restoreInherited(state: InheritedState): void {
  for (let number = 1; number <= LAST_SIGNAL; number += 1) signal(number, null);
  sigprocmask(SIG_SETMASK, Buffer.alloc(128), null);
  restoreDescriptors(state);
  for (const fd of [0, 1, 2, ...state.descriptors]) {
    const flags = fcntl(fd, F_GETFD, "int", 0) as number;
    if (flags >= 0) fcntl(fd, F_SETFD, "int", flags & ~FD_CLOEXEC);
  }
}

/** Only what a child of Node's own inherits too: whether the descriptors block, and how many there may be. */
export function restoreDescriptors(state: InheritedState): void {
  state.nonBlocking.forEach((was, fd) => {
    const flags = fcntl(fd, F_GETFL, "int", 0) as number;
    if (flags < 0) return;
    const restored = was ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    if (restored !== flags) fcntl(fd, F_SETFL, "int", restored);
  });
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

function lowerOpenFiles(soft: bigint): void {
  const limit = Buffer.alloc(16);
  if ((getrlimit(RLIMIT_NOFILE, limit) as number) !== 0) return;
  if (soft >= limit.readBigUInt64LE(0)) return;
  limit.writeBigUInt64LE(soft, 0);
  setrlimit(RLIMIT_NOFILE, limit);
}
