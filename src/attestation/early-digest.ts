import { closeSync, openSync, statfsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { timesShowWrites } from "../platform/linux-filesystem.js";
import { fileClock, isSettled, versionOf } from "./file-version.js";

/*
 * The digest of our own executable, begun before the program itself is loaded. The first caller is most often a Node program too, and its digest is what it
 * would wait for longest. It has a thread of its own: the thread pool is fed by the event loop, which has no turn to spare while modules are being loaded.
 *
 * It is only begun early. Whether it may be shared and kept is decided where all digests are (`hash-cache.ts`), by the same rules.
 */

/** A digest under way. */
export interface EarlyDigest {
  /** What the file was before the first octet was read. */
  readonly version: string;
  readonly changedAt: bigint;
  /** ns, by the clock that files are stamped with, and by the one that nobody sets. */
  readonly began: bigint;
  readonly beganMonotonic: bigint;
  /** Lower-case hex; undefined if there is none, or the file was another one afterwards. Never rejects. */
  readonly sha256: Promise<string | undefined>;
}

/** Read and hashed by one thread, in pieces that stay in a processor's cache. */
const CHUNK_BYTES = 256 * 1024;

let underWay: EarlyDigest | undefined;

/** Begins it, where another processor can do it and it could be kept: not where files may change without their times showing it. */
export function beginDigestOfOwnExecutable(): void {
  if (process.platform !== "linux" || availableParallelism() < 2) return;
  try {
    underWay = beginDigest("/proc/self/exe");
  } catch {
    // Nothing is lost: whoever needs it hashes it then.
  }
}

/** What was begun, once. */
export function takeDigestOfOwnExecutable(): EarlyDigest | undefined {
  const taken = underWay;
  underWay = undefined;
  return taken;
}

/** The digest of a file that is being executed, or undefined where it could not be kept. */
export function beginDigest(path: string, now: () => bigint = fileClock): EarlyDigest | undefined {
  const fd = openSync(path, "r");
  const [began, beganMonotonic] = [now(), process.hrtime.bigint()];
  const before = versionOf(fd);
  if (!timesShowWrites(filesystemOf(fd)) || !isSettled(before, began)) {
    closeSync(fd);
    return undefined;
  }
  const { version, changedAt } = before;
  const sha256 = hashOnThread(fd)
    .then((digest) => (versionOf(fd).version === version ? digest : undefined))
    .catch(() => undefined)
    .finally(() => closeSync(fd));
  return { version, changedAt, began, beganMonotonic, sha256 };
}

function filesystemOf(fd: number): number {
  return statfsSync(`/proc/self/fd/${fd}`).type;
}

function hashOnThread(fd: number): Promise<string | undefined> {
  const worker = new Worker(`(${hashAll})()`, { eval: true, workerData: { fd, chunkBytes: CHUNK_BYTES } });
  worker.unref();
  return new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
    worker.once("exit", () => resolve(undefined));
  });
}

/** Runs alone in the thread: it knows nothing of this file. */
function hashAll(): void {
  const { parentPort, workerData } = process.getBuiltinModule("node:worker_threads");
  const { readSync } = process.getBuiltinModule("node:fs");
  const { createHash } = process.getBuiltinModule("node:crypto");
  const { fd, chunkBytes } = workerData;
  const hash = createHash("sha256");
  const chunk = Buffer.allocUnsafeSlow(chunkBytes);
  let position = 0;
  for (;;) {
    const read = readSync(fd, chunk, 0, chunkBytes, position);
    if (read === 0) break;
    hash.update(chunk.subarray(0, read));
    position += read;
  }
  parentPort?.postMessage(hash.digest("hex"));
}
