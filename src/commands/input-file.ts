import { readFile } from "node:fs/promises";
import { buffer } from "node:stream/consumers";
import { CodedError, messageOf } from "../coded-error.js";

/** The bytes of the file that an argument names, `-` for standard input to its end. Rejects with CodedError `file-unreadable`. */
export async function readInput(name: string): Promise<Buffer> {
  try {
    // Not by descriptor: a pipe whose writer is slow answers EAGAIN to who reads it at once.
    return name === "-" ? await buffer(process.stdin) : await readFile(name);
  } catch (cause) {
    const what = name === "-" ? "standard input" : name;
    throw new CodedError("file-unreadable", `cannot read ${what}: ${messageOf(cause)}`, { cause });
  }
}
