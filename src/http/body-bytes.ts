import { malformed } from "./json-tokens.js";
import { Refusal } from "./refusal.js";

/** What came in smaller pieces is copied together: each piece of its own would cost a hundred times its bytes. */
const SMALL_PIECE = 1024;
const BLOCK_BYTES = 16 * 1024;
/** So much is made into text at once: what is longer than 128 Ki is kept apart by V8, and given back to the system all at once when it is tidied up. */
const PART_BYTES = 32 * 1024;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A body as it comes, in pieces: to put 4 MiB together at once keeps the event loop for some milliseconds, and to make text of it as long again. */
export class BodyBytes {
  length = 0;
  readonly #pieces: Buffer[] = [];
  /** What small pieces are copied to, and how far it is filled. */
  #block: Buffer | undefined;
  #filled = 0;

  static of(bytes: Buffer): BodyBytes {
    const body = new BodyBytes();
    body.add(bytes);
    return body;
  }

  add(piece: Buffer): void {
    this.length += piece.length;
    if (piece.length >= SMALL_PIECE || (this.length === piece.length && this.#block === undefined)) {
      this.#endBlock();
      this.#pieces.push(piece);
      return;
    }
    if (this.#filled + piece.length > BLOCK_BYTES) this.#endBlock();
    this.#block ??= Buffer.allocUnsafeSlow(BLOCK_BYTES);
    this.#filled += piece.copy(this.#block, this.#filled);
  }

  /** All of it, at once. */
  bytes(): Buffer {
    this.#endBlock();
    const [first, ...more] = this.#pieces;
    return first !== undefined && more.length === 0 ? first : Buffer.concat(this.#pieces);
  }

  /** Its text, piece by piece. Throws Refusal where it comes to it: `json-bom`, `json-utf8`. */
  *texts(): Generator<string, undefined> {
    let rest: Buffer = Buffer.alloc(0);
    let isFirst = true;
    for (const part of this.#parts()) {
      const bytes = rest.length === 0 ? part : Buffer.concat([rest, part]);
      const end = endOfCharacters(bytes);
      const whole = bytes.subarray(0, end);
      yield isFirst ? textOf(whole) : decoded(whole);
      isFirst = false;
      rest = bytes.subarray(end);
    }
    if (rest.length > 0) yield decoded(rest);
    return undefined;
  }

  /** What it is made of, in parts of about so many bytes as are made into text at once. */
  *#parts(): Generator<Buffer> {
    this.#endBlock();
    let held: Buffer[] = [];
    let size = 0;
    for (const piece of this.#pieces) {
      for (let at = 0; at < piece.length; at += PART_BYTES) {
        const part = piece.subarray(at, at + PART_BYTES);
        held.push(part);
        size += part.length;
        if (size < PART_BYTES) continue;
        yield Buffer.concat(held);
        held = [];
        size = 0;
      }
    }
    if (size > 0) yield Buffer.concat(held);
  }

  #endBlock(): void {
    if (this.#block !== undefined) this.#pieces.push(this.#block.subarray(0, this.#filled));
    this.#block = undefined;
    this.#filled = 0;
  }
}

/** Throws Refusal: `json-bom`, `json-utf8`. */
export function textOf(bytes: Buffer): string {
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) {
    throw malformed("json-bom", "the body starts with a byte order mark");
  }
  return decoded(bytes);
}

function decoded(bytes: Buffer): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    throw new Refusal("json-utf8", 400, "the body is not valid UTF-8", { cause, jsonRpcCode: -32700 });
  }
}

/** Where the last character begins that more bytes may belong to; the end where that is not to be seen: then it is no UTF-8. */
function endOfCharacters(bytes: Buffer): number {
  for (let back = 1; back <= 4 && back <= bytes.length; back += 1) {
    const byte = bytes[bytes.length - back] ?? 0;
    if (byte < 0x80) break;
    if (byte >= 0xc0) return bytes.length - back;
  }
  return bytes.length;
}
