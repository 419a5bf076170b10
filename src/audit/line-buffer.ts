import { hash } from "node:crypto";
import type { AuditKind } from "./audit-log.js";
import { contentOf, HASH_MEMBER_BYTES, hashMember, requireLength } from "./chain.js";

/** What a turn of the event loop usually has to write; more grows it until it is written. */
const USUAL_BYTES = 64 * 1024;
/** The most bytes of UTF-8 for a unit of UTF-16. */
const MAX_BYTES_OF_UNIT = 3;
const NEWLINE = "\n".charCodeAt(0);

const utf8 = new TextEncoder();

/** Lines that wait to be written, as the bytes they will be: hashed and written from where they stand. */
export class LineBuffer {
  #buffer = new Uint8Array(USUAL_BYTES);
  #length = 0;

  /** The lines added since `clear`, each with its newline. Good until the next `add`. */
  get bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  /** Adds the line that `chainedLine` makes, and returns its hash. Throws AuditError `audit-entry-invalid`; nothing is added then. */
  add(sequence: number, time: string, kind: AuditKind, fields: string, prev: string): string {
    const { head, tail } = contentOf(sequence, time, kind, fields, prev);
    const content = head + tail;
    // A unit of UTF-16 has one byte at least.
    requireLength(kind, content.length + HASH_MEMBER_BYTES);
    const start = this.#length;
    const buffer = this.#withRoomFor(start + content.length * MAX_BYTES_OF_UNIT + HASH_MEMBER_BYTES + 1);
    const end = start + utf8.encodeInto(content, buffer.subarray(start)).written;
    requireLength(kind, end - start + HASH_MEMBER_BYTES);
    const digest = hash("sha256", buffer.subarray(start, end), "hex");
    const cut = end - tail.length;
    const after = cut + HASH_MEMBER_BYTES;
    buffer.copyWithin(after, cut, end);
    utf8.encodeInto(hashMember(digest), buffer.subarray(cut, after));
    buffer[end + HASH_MEMBER_BYTES] = NEWLINE;
    this.#length = end + HASH_MEMBER_BYTES + 1;
    return digest;
  }

  clear(): void {
    this.#length = 0;
    if (this.#buffer.length > USUAL_BYTES) this.#buffer = new Uint8Array(USUAL_BYTES);
  }

  #withRoomFor(bytes: number): Uint8Array {
    if (bytes <= this.#buffer.length) return this.#buffer;
    const larger = new Uint8Array(Math.max(bytes, 2 * this.#buffer.length));
    larger.set(this.bytes);
    this.#buffer = larger;
    return larger;
  }
}
