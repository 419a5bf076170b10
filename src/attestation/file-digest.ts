import { read } from "node:fs";
import { open } from "node:fs/promises";
import { promisify } from "node:util";
import { sha256OnThread } from "../platform/sha256-thread.js";

const readInto = promisify(read);
/** One task of the thread pool: long enough to be worth the way there, short enough that another hash has its turn within a millisecond or two. */
const CHUNK_BYTES = 1024 * 1024;

/**
 * Lower-case hex SHA-256 of what `fd` is open on, from its beginning. Reading and hashing both happen on the thread pool, the next chunk being read
 * while this one is hashed. Undefined once more than `mostBytes` were found.
 */
export async function sha256OfDescriptor(fd: number): Promise<string>;
export async function sha256OfDescriptor(fd: number, mostBytes: number): Promise<string | undefined>;
export async function sha256OfDescriptor(fd: number, mostBytes = Number.POSITIVE_INFINITY) {
  const hash = sha256OnThread();
  let current = Buffer.allocUnsafe(CHUNK_BYTES);
  let next = Buffer.allocUnsafe(CHUNK_BYTES);
  let position = 0;
  try {
    let { bytesRead } = await readInto(fd, current, 0, CHUNK_BYTES, position);
    while (bytesRead > 0) {
      position += bytesRead;
      if (position > mostBytes) return undefined;
      // Both are awaited even if one fails: neither may still be at work in a buffer or a hash that is let go.
      const [reading, hashed] = await Promise.allSettled([
        readInto(fd, next, 0, CHUNK_BYTES, position),
        hash.update(current, bytesRead),
      ]);
      if (reading.status === "rejected") throw reading.reason;
      if (hashed.status === "rejected") throw hashed.reason;
      ({ bytesRead } = reading.value);
      [current, next] = [next, current];
    }
    return hash.digest();
  } finally {
    hash.abandon();
  }
}

/** Lower-case hex SHA-256 of the file at `path`, never from a cache. */
export async function sha256OfFile(path: string): Promise<string> {
  const file = await open(path, "r");
  try {
    return await sha256OfDescriptor(file.fd);
  } finally {
    await file.close();
  }
}
