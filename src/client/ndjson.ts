import { CodedError } from "../coded-error.js";

/** A line longer than this is not an event of ours; without a bound a broken peer could fill our memory. */
const MAX_LINE_CHARACTERS = 1_048_576;

/**
 * The lines of a byte stream that carries newline-delimited JSON, without their newline. Empty lines are skipped.
 *
 * A chunk may end inside a line and inside a UTF-8 sequence. A last line without a newline is dropped: its writer died
 * in the middle of it.
 *
 * @throws CodedError `ndjson-line-too-long`, `ndjson-not-utf8`
 */
export async function* ndjsonLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let rest = "";
  for await (const chunk of chunks) {
    rest += decode(decoder, chunk);
    const parts = rest.split("\n");
    rest = parts.pop() ?? "";
    if (rest.length > MAX_LINE_CHARACTERS) {
      throw new CodedError("ndjson-line-too-long", `a line is longer than ${MAX_LINE_CHARACTERS} characters`);
    }
    for (const line of parts) {
      if (line.trim() !== "") yield line;
    }
  }
}

function decode(decoder: TextDecoder, chunk: Uint8Array): string {
  try {
    return decoder.decode(chunk, { stream: true });
  } catch (cause) {
    throw new CodedError("ndjson-not-utf8", "the stream is not UTF-8", { cause });
  }
}
