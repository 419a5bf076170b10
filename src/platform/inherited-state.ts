import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/*
 * Read with node:fs alone. Loading koffi or node:http touches process.stderr (Node's own node:util and node:assert do), which makes a pipe non-blocking,
 * also for everybody who shares it; so this must run, and must be able to run, before they are loaded.
 */

const O_NONBLOCK = 0o4000;

/** What must be as it was when the command starts. */
export interface InheritedState {
  /** Whether descriptors 0, 1 and 2 were non-blocking. */
  readonly nonBlocking: readonly boolean[];
  /** Descriptors from 3 on that came from our parent and not from Node. */
  readonly descriptors: readonly number[];
  /** Soft limit on open files of our parent, which is what ours was before Node raised it; undefined where the system does not tell. */
  readonly openFiles: bigint | undefined;
}

/** Must be called before anything reads, prints, or opens descriptors. Where there is no /proc (macOS), a blocking terminal or pipe is assumed. */
export function inheritedState(): InheritedState {
  return {
    nonBlocking: [0, 1, 2].map(isNonBlocking),
    descriptors: inheritedDescriptors(),
    openFiles: openFilesOf(process.ppid),
  };
}

function isNonBlocking(fd: number): boolean {
  const flags = /^flags:\s+([0-7]+)/m.exec(textOf(`/proc/self/fdinfo/${fd}`))?.[1];
  return flags !== undefined && (Number.parseInt(flags, 8) & O_NONBLOCK) !== 0;
}

/**
 * Node opens event and pipe descriptors for itself. What is neither an anonymous inode nor a pipe with both ends here came from the parent
 * (`3<file`, a jobserver, sockets of a service manager).
 */
function inheritedDescriptors(): number[] {
  const links = new Map<number, string>();
  for (const fd of ownDescriptors()) {
    try {
      links.set(fd, readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      // the descriptor of this very listing
    }
  }
  const ends = new Map<string, number>();
  for (const link of links.values()) ends.set(link, (ends.get(link) ?? 0) + 1);
  const isNodes = (link: string): boolean =>
    link.startsWith("anon_inode:") || link === "/dev/null" || (link.startsWith("pipe:") && ends.get(link) !== 1);
  return [...links].filter(([fd, link]) => fd > 2 && !isNodes(link)).map(([fd]) => fd);
}

function ownDescriptors(): number[] {
  try {
    return readdirSync("/proc/self/fd").map(Number);
  } catch {
    return []; // no /proc: only 0, 1 and 2 are passed on
  }
}

function openFilesOf(pid: number): bigint | undefined {
  const soft = /^Max open files\s+(\d+)/m.exec(textOf(`/proc/${pid}/limits`))?.[1];
  return soft === undefined ? undefined : BigInt(soft);
}

/** Empty where the system does not tell: no /proc, or the parent has exited or is another user's. */
function textOf(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
