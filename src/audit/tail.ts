import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { codeOf } from "../coded-error.js";
import { GENESIS, MAX_ENTRY_BYTES, readClaims } from "./chain.js";

export interface Tail {
  /** Of the entry to be written next. */
  readonly sequence: number;
  /** Hash of the last entry. */
  readonly head: string;
  /** Length of a last line without its newline, as a power cut leaves it; 0 where there is none. */
  readonly tornBytes: number;
  /** Hex SHA-256 of the torn line. */
  readonly tornDigest: string;
  readonly problem: string | undefined;
}

const TAIL_BYTES = 4 * MAX_ENTRY_BYTES;
const NEWLINE = 0x0a;

/** Reads the end of a segment of `size` bytes and checks that its last entries chain, without reading the rest. */
export function inspectTail(path: string, size: number): Tail {
  const start = Math.max(0, size - TAIL_BYTES);
  const bytes = readRange(path, start, size - start);
  const end = bytes.lastIndexOf(NEWLINE) + 1;
  const torn = bytes.subarray(end);
  const tornDigest = createHash("sha256").update(torn).digest("hex");
  if (torn.length > MAX_ENTRY_BYTES) {
    return { sequence: 0, head: GENESIS, tornBytes: 0, tornDigest, problem: "its end is no entry" };
  }
  let at = start === 0 ? 0 : bytes.indexOf(NEWLINE) + 1;
  let head = start === 0 ? GENESIS : undefined;
  let sequence = 0;
  let problem: string | undefined;
  while (at < end) {
    const next = bytes.indexOf(NEWLINE, at);
    const claims = readClaims(bytes.subarray(at, next));
    const follows = claims !== undefined && (head === undefined || claims.prev === head);
    if (!follows || claims.actual !== claims.hash) problem ??= `entry ${claims?.sequence ?? sequence} does not chain`;
    head = claims?.hash ?? head;
    sequence = claims === undefined ? sequence + 1 : claims.sequence + 1;
    at = next + 1;
  }
  return { sequence, head: head ?? GENESIS, tornBytes: torn.length, tornDigest, problem };
}

/** Hex SHA-256 of a file; of nothing where there is none. */
export function digestOfFile(path: string): string {
  const digest = createHash("sha256");
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (thrown) {
    if (codeOf(thrown) === "ENOENT") return digest.digest("hex");
    throw thrown;
  }
  try {
    const chunk = Buffer.allocUnsafe(1 << 20);
    for (let read = readSync(fd, chunk); read > 0; read = readSync(fd, chunk)) digest.update(chunk.subarray(0, read));
    return digest.digest("hex");
  } finally {
    closeSync(fd);
  }
}

function readRange(path: string, start: number, length: number): Buffer {
  const fd = openSync(path, "r");
  try {
    const bytes = Buffer.allocUnsafe(length);
    let filled = 0;
    while (filled < length) {
      const read = readSync(fd, bytes, filled, length - filled, start + filled);
      if (read === 0) break;
      filled += read;
    }
    return bytes.subarray(0, filled);
  } finally {
    closeSync(fd);
  }
}
