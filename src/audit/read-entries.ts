import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import type { AuditEntry } from "./audit-log.js";
import { MAX_ENTRY_BYTES, parseEntry } from "./chain.js";
import { segmentsIn } from "./segments.js";

const CHUNK_BYTES = 2 * MAX_ENTRY_BYTES;
const MAX_ENTRIES = 10_000;
const NEWLINE = 0x0a;
const SEQUENCE = /"sequence":(\d{1,15}),"time":"[^"]{24}"\}$/;

/**
 * Entries from `fromSequence` on, oldest first, at most `limit` (and 10,000). Finds the first by halving the file, so the end of a long log is as
 * near as its beginning. Lines that are no entries are passed over: `verifyAuditLog` names them.
 */
export async function readEntries(
  directory: string,
  fromSequence: number,
  limit: number,
  lastSegmentBytes: number = Number.MAX_SAFE_INTEGER,
): Promise<readonly AuditEntry[]> {
  const wanted = Math.min(limit, MAX_ENTRIES);
  const entries: AuditEntry[] = [];
  const segments = await segmentsIn(directory);
  for (const [index, segment] of segments.entries()) {
    if (entries.length >= wanted) break;
    const file = await open(join(directory, segment), "r");
    try {
      const { size } = await file.stat();
      const end = index === segments.length - 1 ? Math.min(size, lastSegmentBytes) : size;
      const start = await findSequence(file, end, fromSequence);
      for await (const line of linesFrom(file, start, end)) {
        if (entries.length >= wanted) break;
        const entry = entryOf(line.text);
        if (entry !== undefined && entry.sequence >= fromSequence) entries.push(entry);
      }
    } finally {
      await file.close();
    }
  }
  return entries;
}

/** Offset of a line at or shortly before the first entry whose sequence is at least `wanted`. */
async function findSequence(file: FileHandle, size: number, wanted: number): Promise<number> {
  let low = 0;
  let high = size;
  while (high - low > CHUNK_BYTES) {
    const middle = low + Math.floor((high - low) / 2);
    const found = await firstEntryAfter(file, middle, high);
    if (found !== undefined && found.sequence < wanted) low = found.offset;
    else high = middle;
  }
  return low;
}

async function firstEntryAfter(
  file: FileHandle,
  offset: number,
  end: number,
): Promise<{ sequence: number; offset: number } | undefined> {
  let partial = offset > 0;
  for await (const line of linesFrom(file, offset, end)) {
    // The middle of a file is the middle of a line.
    if (partial) {
      partial = false;
      continue;
    }
    const sequence = SEQUENCE.exec(line.text)?.[1];
    if (sequence !== undefined) return { sequence: Number(sequence), offset: line.offset };
  }
  return undefined;
}

async function* linesFrom(
  file: FileHandle,
  start: number,
  end: number,
): AsyncGenerator<{ readonly text: string; readonly offset: number }> {
  let rest = Buffer.alloc(0);
  let at = start;
  while (at < end) {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, end - at));
    const { bytesRead } = await file.read(chunk, 0, chunk.length, at);
    if (bytesRead === 0) return;
    const data = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
    const base = at - rest.length;
    at += bytesRead;
    let from = 0;
    for (let next = data.indexOf(NEWLINE); next !== -1; next = data.indexOf(NEWLINE, from)) {
      yield { text: data.toString("utf8", from, next), offset: base + from };
      from = next + 1;
    }
    rest = data.subarray(from);
  }
}

function entryOf(line: string): AuditEntry | undefined {
  try {
    return parseEntry(line);
  } catch {
    return undefined;
  }
}
