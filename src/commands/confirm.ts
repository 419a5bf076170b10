import { createInterface } from "node:readline/promises";
import { CodedError } from "../coded-error.js";

/** Asks the person at the terminal. Throws CodedError `not-confirmed` where there is none, or where the answer is not yes. */
export async function confirm(question: string): Promise<void> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new CodedError("not-confirmed", "nobody is here to confirm it", { hint: "--yes does it without asking" });
  }
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await lines.question(`${question} [y/N] `);
    if (!/^y(es)?$/i.test(answer.trim())) throw new CodedError("not-confirmed", "nothing was changed");
  } finally {
    lines.close();
  }
}
