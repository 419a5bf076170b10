import type { EarlyDigest } from "./early-digest.js";
import { sha256OfDescriptor } from "./file-digest.js";
import { fileClock, isSettled, versionOf } from "./file-version.js";

/** Digests of executables that the kernel runs. */
export interface ExecutableDigests {
  /**
   * Lower-case hex SHA-256 of the executable open at `fd`; undefined where there is none, and `absence` says why.
   * `fd` stays the caller's and must stay open until the promise settles.
   */
  digestOf(executable: HashableExecutable): Promise<string | undefined>;
  /** Why the executable has no digest, for people. */
  absence(executable: HashableExecutable): string;
}

export interface HashableExecutable {
  readonly fd: number;
  /** False where bytes may change without size, mtime or ctime showing it: such a file is hashed every time. */
  readonly timesShowWrites: boolean;
}

interface DigestOptions {
  /** Nanoseconds since 1970, by the clock that files are stamped with. */
  readonly now?: () => bigint;
  /** Nanoseconds, by a clock that nobody sets. */
  readonly monotonic?: () => bigint;
  /** A larger executable has no digest. */
  readonly largestBytes?: number;
  /** Begun already; by the same two clocks. */
  readonly early?: EarlyDigest | undefined;
}

const MAX_ENTRIES = 512;
/** Bounds what one caller can make us read. Node itself has 100 to 150 MB, a large language model's runner 300. */
const LARGEST_BYTES = 512 * 1024 * 1024;
/** Files hashed at the same time; each takes two chunks of memory and a turn on the thread pool. */
const MOST_AT_ONCE = 4;
/** A clock that is further back than this, against one that nobody sets, could stamp a file with a settled ctime for a second time. */
const SET_BACK_NS = 1_000_000_000n;

/**
 * Caches by device, inode, size, mtime and ctime (D6): only for what the kernel has mapped as an executable, only where these show every write, and only
 * when the last change is more than 2 s older than the hash. A clock that was set back forgets everything, because the same ctime can then come twice.
 * Requests for one file at the same time share one hash. Hashing happens off the event loop, a few files at a time.
 */
export function executableDigests(options: DigestOptions = {}): ExecutableDigests {
  const { now = fileClock, monotonic = () => process.hrtime.bigint(), largestBytes = LARGEST_BYTES, early } = options;
  const known = new Map<string, string>();
  const underWay = new Map<string, Promise<string | undefined>>();
  const turns = takeTurns(MOST_AT_ONCE);
  let clockAhead = early === undefined ? now() - monotonic() : early.began - early.beganMonotonic;

  function forgetIfClockWasSetBack(): void {
    const ahead = now() - monotonic();
    if (ahead < clockAhead - SET_BACK_NS) {
      known.clear();
      underWay.clear();
      clockAhead = ahead;
    } else if (ahead > clockAhead) clockAhead = ahead;
  }

  async function hash(fd: number, version: string): Promise<string | undefined> {
    const sha256 = await turns(() => sha256OfDescriptor(fd, largestBytes));
    return versionOf(fd).version === version ? sha256 : undefined;
  }

  /** Lets others share the digest while it is made, and keeps it where it may be kept. */
  async function share(version: string, changedAt: bigint, began: bigint, hashing: Promise<string | undefined>) {
    underWay.set(version, hashing);
    try {
      const digest = await hashing;
      forgetIfClockWasSetBack();
      // A clock that was set back meanwhile may come to the file's ctime again.
      const settled = isSettled({ changedAt }, began) && isSettled({ changedAt }, now());
      if (digest !== undefined && settled) remember(known, version, digest);
      return digest;
    } finally {
      if (underWay.get(version) === hashing) underWay.delete(version);
    }
  }

  if (early !== undefined) void share(early.version, early.changedAt, early.began, early.sha256);

  return {
    async digestOf({ fd, timesShowWrites }) {
      const { version, changedAt, size } = versionOf(fd);
      if (size > largestBytes) return undefined;
      if (!timesShowWrites) return hash(fd, version);
      forgetIfClockWasSetBack();
      const cached = known.get(version);
      if (cached !== undefined) return cached;
      // The other request's reading may fail for reasons of its own, or the file changed: only our own reading counts then.
      const shared = await underWay.get(version)?.catch(() => undefined);
      if (shared !== undefined) return shared;
      return share(version, changedAt, now(), hash(fd, version));
    },
    absence({ fd }) {
      const { size } = versionOf(fd);
      if (size <= largestBytes) return "the executable changed while it was hashed";
      return `the executable has ${megabytes(Number(size))}; more than ${megabytes(largestBytes)} are not hashed`;
    },
  };
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1_048_576)} MB`;
}

/** Runs at most `most` jobs at a time, the others in the order in which they came. */
function takeTurns(most: number): <Result>(job: () => Promise<Result>) => Promise<Result> {
  const waiting: (() => void)[] = [];
  let busy = 0;
  return async (job) => {
    if (busy >= most) await new Promise<void>((resolve) => waiting.push(resolve));
    else busy += 1;
    try {
      return await job();
    } finally {
      // The place is handed on, or free.
      const next = waiting.shift();
      if (next === undefined) busy -= 1;
      else next();
    }
  };
}

function remember(known: Map<string, string>, version: string, digest: string): void {
  if (known.size >= MAX_ENTRIES) {
    const oldest = known.keys().next();
    if (!oldest.done) known.delete(oldest.value);
  }
  known.set(version, digest);
}
