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

/** An element of `tag` around `contents`. */
export function encodeElement(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  let length = 0;
  for (const content of contents) length += content.length;
  return Buffer.concat([encodeHeader(tag, length), ...contents]);
}

/** A positive INTEGER from its big-endian magnitude. */
export function encodePositiveInteger(magnitude: Buffer): Buffer {
  let start = 0;
  while (start < magnitude.length - 1 && magnitude[start] === 0) start++;
  const trimmed = magnitude.subarray(start);
  return byteAt(trimmed, 0) >= 0x80
    ? encodeElement(TAG.integer, Buffer.of(0), trimmed)
    : encodeElement(TAG.integer, trimmed);
}

/** A Time: UTCTime before 2050, GeneralizedTime from then on, to the second. RFC 5280 §4.1.2.5. */
export function encodeTime(time: Date): Buffer {
  const iso = time.toISOString();
  const [year, month, day] = [iso.slice(0, 4), iso.slice(5, 7), iso.slice(8, 10)];
  const rest = `${month}${day}${iso.slice(11, 13)}${iso.slice(14, 16)}${iso.slice(17, 19)}Z`;
  return time.getUTCFullYear() < 2050
    ? encodeElement(TAG.utcTime, Buffer.from(year.slice(2) + rest, "latin1"))
    : encodeElement(TAG.generalizedTime, Buffer.from(year + rest, "latin1"));
}

function encodeHeader(tag: number, length: number): Buffer {
  if (length < 0x80) return Buffer.of(tag, length);
  if (length < 0x100) return Buffer.of(tag, 0x81, length);
  if (length < 0x10000) return Buffer.of(tag, 0x82, length >> 8, length & 0xff);
  return Buffer.of(tag, 0x83, length >> 16, (length >> 8) & 0xff, length & 0xff);
}

function byteAt(bytes: Buffer, offset: number): number {
  const byte = bytes[offset];
  if (byte === undefined) throw new DerError("der-truncated", "input ends inside an element");
  return byte;
}
