import { readFileSync } from "node:fs";
import { CodedError, messageOf } from "../coded-error.js";

/** The bytes of the file that an argument names, `-` for standard input. Throws CodedError `file-unreadable`. */
export function readInput(name: string): Buffer {
  try {
    return readFileSync(name === "-" ? 0 : name);
  } catch (cause) {
    throw new CodedError(
      "file-unreadable",
      `cannot read ${name === "-" ? "standard input" : name}: ${messageOf(cause)}`,
      {
        cause,
      },
    );
  }
}
