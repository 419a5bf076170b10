import { createHash } from "node:crypto";
import { read } from "node:fs";
import { open } from "node:fs/promises";
import { promisify } from "node:util";

const readInto = promisify(read);
/** Hashing one chunk keeps the event loop for well under a millisecond. */
const CHUNK_BYTES = 512 * 1024;

/** Lower-case hex SHA-256 of what `fd` is open on, from its beginning. Reads the next chunk on the thread pool while hashing this one. */
export async function sha256OfDescriptor(fd: number): Promise<string> {
  const hash = createHash("sha256");
  let current = Buffer.allocUnsafe(CHUNK_BYTES);
  let next = Buffer.allocUnsafe(CHUNK_BYTES);
  let position = 0;
  let { bytesRead } = await readInto(fd, current, 0, CHUNK_BYTES, position);
  while (bytesRead > 0) {
    position += bytesRead;
    const reading = readInto(fd, next, 0, CHUNK_BYTES, position);
    hash.update(current.subarray(0, bytesRead));
    ({ bytesRead } = await reading);
    [current, next] = [next, current];
  }
  return hash.digest("hex");
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
