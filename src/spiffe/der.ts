import { CodedError } from "../coded-error.js";

/**
 * DER, only as much as certificates need: a strict reader and a writer of the few types that we issue.
 *
 * Not a library's, because both run at every handshake and every issue: parsing one leaf and its extensions with
 * `@peculiar/x509` takes over 1 ms, with this less than OpenSSL's own parsing of the same certificate; and library parsers accept BER, where one certificate has many encodings.
 */

export type DerErrorCode = "der-truncated" | "der-not-canonical" | "der-unexpected" | "der-trailing";

/** Bytes are not the DER that was expected. */
export class DerError extends CodedError<DerErrorCode> {
  override readonly name = "DerError";
}

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** The context-specific tag `[number]`, constructed or primitive. */
export function contextTag(number: number, form: "constructed" | "primitive"): number {
  return (form === "constructed" ? 0xa0 : 0x80) | number;
}

/** One element: its tag, its whole encoding and its content, as views of the bytes read. */
export interface DerElement {
  readonly tag: number;
  readonly encoding: Buffer;
  readonly content: Buffer;
}

/** The element that begins at `offset`. Throws DerError. X.690 §8.1.3, §10.1: definite lengths, in the fewest octets. */
export function readElement(bytes: Buffer, offset = 0): DerElement {
  const tag = byteAt(bytes, offset);
  if ((tag & 0x1f) === 0x1f) throw new DerError("der-unexpected", "tags above 30 do not occur in certificates");
  const first = byteAt(bytes, offset + 1);
  let length = first;
  let start = offset + 2;
  if (first >= 0x80) {
    const octets = first & 0x7f;
    if (octets === 0) throw new DerError("der-not-canonical", "indefinite length");
    if (octets > 4) throw new DerError("der-truncated", "length does not fit the input");
    length = 0;
    for (let index = 0; index < octets; index++) length = length * 256 + byteAt(bytes, start + index);
    if (length < 0x80 || byteAt(bytes, start) === 0) throw new DerError("der-not-canonical", "length is padded");
    start += octets;
  }
  const end = start + length;
  if (end > bytes.length) throw new DerError("der-truncated", "input ends inside an element");
  return { tag, encoding: bytes.subarray(offset, end), content: bytes.subarray(start, end) };
}

/** The elements that follow each other in `bytes`, to its end. Throws DerError. */
export function readElements(bytes: Buffer): DerElement[] {
  const elements: DerElement[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const element = readElement(bytes, offset);
    elements.push(element);
    offset += element.encoding.length;
  }
  return elements;
}

/** The content of the one element with `tag` that is all of `bytes`. Throws DerError. */
export function contentOf(bytes: Buffer, tag: number): Buffer {
  const element = readElement(bytes);
  if (element.tag !== tag) throw new DerError("der-unexpected", `tag ${element.tag} where ${tag} belongs`);
  if (element.encoding.length !== bytes.length) throw new DerError("der-trailing", "bytes after the element");
  return element.content;
}

/** A BOOLEAN's value. Throws DerError. X.690 §11.1: TRUE is 0xff. */
export function readBoolean(content: Buffer): boolean {
  if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff)) {
    throw new DerError("der-not-canonical", "BOOLEAN is neither 00 nor ff");
  }
  return content[0] === 0xff;
}

/** A small non-negative INTEGER's value (pathLenConstraint). Throws DerError. */
export function readSmallInteger(content: Buffer): number {
  if (content.length === 0 || content.length > 4 || byteAt(content, 0) >= 0x80) {
    throw new DerError("der-unexpected", "INTEGER is negative or too large");
  }
  if (content.length > 1 && content[0] === 0 && byteAt(content, 1) < 0x80) {
    throw new DerError("der-not-canonical", "INTEGER is padded");
  }
  return content.readUIntBE(0, content.length);
}

/** Bit `n` of a named-bit BIT STRING (KeyUsage) is true at index n. Throws DerError. */
export function readNamedBits(content: Buffer): boolean[] {
  const unused = byteAt(content, 0);
  const last = content.length > 1 ? byteAt(content, content.length - 1) : 0;
  if (unused > 7 || (content.length === 1 && unused !== 0) || (last & ((1 << unused) - 1)) !== 0) {
    throw new DerError("der-not-canonical", "BIT STRING has a wrong number of unused bits");
  }
  const bits: boolean[] = [];
  for (let index = 1; index < content.length; index++) {
    for (let bit = 7; bit >= 0; bit--) bits.push((byteAt(content, index) & (1 << bit)) !== 0);
  }
  return bits.slice(0, bits.length - unused);
}

/** An OBJECT IDENTIFIER in dotted form. Throws DerError. */
export function readObjectIdentifier(content: Buffer): string {
  if (content.length === 0 || byteAt(content, content.length - 1) >= 0x80) {
    throw new DerError("der-truncated", "OBJECT IDENTIFIER ends inside a component");
  }
  const components: number[] = [];
  let value = 0;
  let begins = true;
  for (const octet of content) {
    if (begins && octet === 0x80) throw new DerError("der-not-canonical", "OBJECT IDENTIFIER component is padded");
    value = value * 128 + (octet & 0x7f);
    // Larger components exist (UUIDs below 2.25), but in no certificate that we could accept.
    if (value > 0xffffffff) throw new DerError("der-unexpected", "OBJECT IDENTIFIER component is above 32 bits");
    begins = octet < 0x80;
    if (!begins) continue;
    components.push(value);
    value = 0;
  }
  const [joined = 0, ...rest] = components;
  const first = Math.min(Math.floor(joined / 40), 2);
  return [first, joined - first * 40, ...rest].join(".");
}

/** An element that is not written yet: whatever is nested, `encode` writes every octet once. */
export interface UnwrittenElement {
  readonly tag: number;
  readonly contents: readonly (Uint8Array | UnwrittenElement)[];
  /** Octets of the contents. */
  readonly contentLength: number;
}

/** An element of `tag` around `contents`, which are DER themselves or a primitive's octets. */
export function element(tag: number, ...contents: readonly (Uint8Array | UnwrittenElement)[]): UnwrittenElement {
  let contentLength = 0;
  for (const content of contents) {
    contentLength += content instanceof Uint8Array ? content.length : lengthOf(content.contentLength);
  }
  return { tag, contents, contentLength };
}

/** The DER of `unwritten`, in memory of its own: what is cut from Node's pool keeps 8 KiB alive, for a certificate of 500 octets that is held for minutes. */
export function encode(unwritten: UnwrittenElement): Buffer {
  const bytes = Buffer.allocUnsafeSlow(lengthOf(unwritten.contentLength));
  write(unwritten, bytes, 0);
  return bytes;
}

/** A positive INTEGER from its big-endian magnitude. */
export function positiveInteger(magnitude: Buffer): UnwrittenElement {
  let start = 0;
  while (start < magnitude.length - 1 && magnitude[start] === 0) start++;
  const trimmed = magnitude.subarray(start);
  return byteAt(trimmed, 0) >= 0x80 ? element(TAG.integer, ZERO, trimmed) : element(TAG.integer, trimmed);
}

/** A Time: UTCTime before 2050, GeneralizedTime from then on, to the second. RFC 5280 §4.1.2.5. Throws DerError for a time that it cannot say. */
export function timeElement(time: Date): UnwrittenElement {
  const year = time.getUTCFullYear();
  if (!(year >= 1950 && year <= 9999)) throw new DerError("der-unexpected", "a Time lies between 1950 and 9999");
  const short = year < 2050;
  const octets = Buffer.allocUnsafe(short ? 13 : 15);
  let at = short ? 0 : writeTwoDigits(octets, 0, Math.floor(year / 100));
  at = writeTwoDigits(octets, at, year % 100);
  at = writeTwoDigits(octets, at, time.getUTCMonth() + 1);
  at = writeTwoDigits(octets, at, time.getUTCDate());
  at = writeTwoDigits(octets, at, time.getUTCHours());
  at = writeTwoDigits(octets, at, time.getUTCMinutes());
  at = writeTwoDigits(octets, at, time.getUTCSeconds());
  octets[at] = UTC;
  return element(short ? TAG.utcTime : TAG.generalizedTime, octets);
}

const DIGIT_ZERO = 0x30;
/** "Z". */
const UTC = 0x5a;

/** Returns the offset after them. */
function writeTwoDigits(octets: Buffer, at: number, value: number): number {
  octets[at] = DIGIT_ZERO + Math.floor(value / 10);
  octets[at + 1] = DIGIT_ZERO + (value % 10);
  return at + 2;
}

const ZERO = Buffer.of(0);

/** Octets of a whole element whose contents are `contentLength` long. X.690 §8.1.3, §10.1: the length in the fewest octets. */
function lengthOf(contentLength: number): number {
  if (contentLength < 0x80) return 2 + contentLength;
  if (contentLength < 0x100) return 3 + contentLength;
  return (contentLength < 0x10000 ? 4 : 5) + contentLength;
}

/** Returns the offset after it. */
function write({ tag, contents, contentLength }: UnwrittenElement, bytes: Buffer, at: number): number {
  const lengthOctets = lengthOf(contentLength) - contentLength - 2;
  bytes[at] = tag;
  bytes[at + 1] = lengthOctets === 0 ? contentLength : 0x80 | lengthOctets;
  let offset = at + 2;
  for (let shift = 8 * (lengthOctets - 1); shift >= 0; shift -= 8) bytes[offset++] = contentLength >> shift;
  for (const content of contents) {
    if (content instanceof Uint8Array) {
      bytes.set(content, offset);
      offset += content.length;
    } else {
      offset = write(content, bytes, offset);
    }
  }
  return offset;
}

function byteAt(bytes: Buffer, offset: number): number {
  const byte = bytes[offset];
  if (byte === undefined) throw new DerError("der-truncated", "input ends inside an element");
  return byte;
}
