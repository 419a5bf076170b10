import { readdirSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { codeOf } from "../coded-error.js";

/**
 * A log is one file, `log.ndjson`, and goes on in `log-1.ndjson`, `log-2.ndjson` … only after a file was found not to be what was written to it:
 * nothing is ever appended to a broken chain, and nothing of it is removed.
 */
export function segmentName(number: number): string {
  return number === 0 ? "log.ndjson" : `log-${number}.ndjson`;
}

/** Names of the segments in `directory`, in order; empty where there is no directory. */
export async function segmentsIn(directory: string): Promise<readonly string[]> {
  try {
    return inOrder(await readdir(directory));
  } catch (thrown) {
    if (codeOf(thrown) === "ENOENT") return [];
    throw thrown;
  }
}

export function segmentsInSync(directory: string): readonly string[] {
  return inOrder(readdirSync(directory));
}

/** The number of a segment from its name. */
export function segmentNumber(name: string): number {
  return Number(/^log-(\d{1,6})\.ndjson$/.exec(name)?.[1] ?? 0);
}

function inOrder(names: readonly string[]): readonly string[] {
  return names
    .filter((name) => name === "log.ndjson" || /^log-[1-9]\d{0,5}\.ndjson$/.test(name))
    .sort((a, b) => segmentNumber(a) - segmentNumber(b));
}
