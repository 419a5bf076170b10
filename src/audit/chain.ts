import { hash } from "node:crypto";
import { canonicalize } from "json-canonicalize";
import { messageOf } from "../coded-error.js";
import { AuditError } from "./audit-error.js";
import type { AuditEntry, AuditFields, AuditKind, AuditValue } from "./audit-log.js";
import { PreparedFields } from "./prepared-fields.js";

/** What the first entry of a chain names as the entry before it. */
export const GENESIS = "0".repeat(64);

/** Entries stay below what a C2SP tile can hold. */
export const MAX_ENTRY_BYTES = 65_535;

export interface ChainedLine {
  /** The entry as it is written, without the newline. */
  readonly line: string;
  readonly hash: string;
}

/** `fields` as they stand in the line of an entry. Throws AuditError `audit-entry-invalid`. */
export function canonicalFields(kind: AuditKind, fields: AuditFields | PreparedFields): string {
  if (fields instanceof PreparedFields) return fields.canonical;
  try {
    return isInOrder(fields) ? JSON.stringify(fields) : canonicalize(fields);
  } catch (cause) {
    throw new AuditError("audit-entry-invalid", `an entry of kind ${kind} is not JSON: ${messageOf(cause)}`, { cause });
  }
}

/** Texts that differ in the one place where a member varies. */
const MARKS = { one: "x", other: "y" };
/** JSON writes these characters as they are. */
const PLAIN = /^[\w-]+$/;

/**
 * Fields that differ in the text of one `member` alone, such as the id of a decision: what is the same in all of them is brought into its canonical form once.
 * Throws AuditError `audit-entry-invalid`, and so does what it returns for a text that JSON would have to escape.
 */
export function preparedFields(kind: AuditKind, fields: AuditFields, member: string): (text: string) => PreparedFields {
  const one = canonicalFields(kind, { ...fields, [member]: MARKS.one });
  const other = canonicalFields(kind, { ...fields, [member]: MARKS.other });
  let at = 0;
  while (one[at] === other[at]) at += 1;
  const head = one.slice(0, at);
  const tail = one.slice(at + MARKS.one.length);
  return (text) => {
    if (!PLAIN.test(text)) throw new AuditError("audit-entry-invalid", `${member} of a prepared entry is not plain`);
    return new PreparedFields(head + text + tail);
  };
}

/**
 * True if RFC 8785 asks no more of `value` than `JSON.stringify` does, which is many times as fast: members stand in the order of their names, and nothing in
 * it is without JSON. Numbers and strings are those of ECMAScript in both.
 */
function isInOrder(value: AuditValue | undefined): boolean {
  if (typeof value === "string" || typeof value === "boolean" || value === null) return true;
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value !== "object" || "toJSON" in value) return false;
  if (Array.isArray(value)) return value.every(isInOrder);
  let before: string | undefined;
  // In a loop of this form V8 knows where each member stands.
  for (const name in value) {
    if (before !== undefined && name <= before) return false;
    if (!isInOrder((value as AuditFields)[name])) return false;
    before = name;
  }
  return true;
}

/** An entry as canonical JSON (RFC 8785) without its `hash`, in the two parts between which that stands. */
interface Content {
  readonly head: string;
  /** ASCII alone. */
  readonly tail: string;
}

/** Only `fields` has members whose order is not known beforehand, so only they go through the canonicaliser, before: `canonicalFields`. */
export function contentOf(sequence: number, time: string, kind: AuditKind, fields: string, prev: string): Content {
  const tail = `"kind":${JSON.stringify(kind)},"prev":"${prev}","sequence":${sequence},"time":"${time}"}`;
  return { head: `{"fields":${fields},`, tail };
}

/** `"hash":"…",` as it stands in a line. */
export function hashMember(digest: string): string {
  return `"hash":"${digest}",`;
}

/** Throws AuditError `audit-entry-invalid` for a line of so many `bytes`. */
export function requireLength(kind: AuditKind, bytes: number): void {
  if (bytes <= MAX_ENTRY_BYTES) return;
  throw new AuditError("audit-entry-invalid", `an entry of kind ${kind} is larger than ${MAX_ENTRY_BYTES} bytes`);
}

/**
 * One entry as canonical JSON `{fields, hash, kind, prev, sequence, time}`, where `hash` is the SHA-256 of the canonical form without `hash`.
 * Throws AuditError `audit-entry-invalid`.
 */
export function chainedLine(
  sequence: number,
  time: string,
  kind: AuditKind,
  fields: string,
  prev: string,
): ChainedLine {
  const { head, tail } = contentOf(sequence, time, kind, fields, prev);
  const digest = hash("sha256", head + tail, "hex");
  const line = `${head}${hashMember(digest)}${tail}`;
  requireLength(kind, Buffer.byteLength(line));
  return { line, hash: digest };
}

/** What a line says of itself, read from its end, where everything has a known shape. */
export interface LineClaims {
  readonly hash: string;
  readonly prev: string;
  readonly sequence: number;
  /** Hash of the content as it stands. */
  readonly actual: string;
}

export const HASH_MEMBER_BYTES = hashMember(GENESIS).length;
const TAIL =
  /,"hash":"([0-9a-f]{64})","kind":"[a-z.-]{1,40}","prev":"([0-9a-f]{64})","sequence":(\d{1,15}),"time":"[0-9TZ:.-]{24}"\}$/;
const MAX_TAIL_BYTES = 320;

/** Reads a line (without newline) that `chainedLine` wrote. Undefined where it does not have that form. The buffer is left as it was. */
export function readClaims(line: Buffer): LineClaims | undefined {
  const from = Math.max(0, line.length - MAX_TAIL_BYTES);
  const match = TAIL.exec(line.toString("latin1", from));
  if (match === null || line.length > MAX_ENTRY_BYTES) return undefined;
  const [, claimed = "", prev = "", sequence = ""] = match;
  const cut = from + match.index + 1;
  const content = Buffer.allocUnsafe(line.length - HASH_MEMBER_BYTES);
  line.copy(content, 0, 0, cut);
  line.copy(content, cut, cut + HASH_MEMBER_BYTES);
  return { hash: claimed, prev, sequence: Number(sequence), actual: hash("sha256", content, "hex") };
}

/** The entry of a line. Throws AuditError `audit-tampered` where the line is not an entry. */
export function parseEntry(line: string): AuditEntry {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new AuditError("audit-tampered", "a line of the audit log is not JSON", { cause });
  }
  if (!isEntry(value)) throw new AuditError("audit-tampered", "a line of the audit log is not an entry");
  const { sequence, time, kind, fields, hash: digest } = value;
  return { sequence, time, kind, fields, hash: digest };
}

function isEntry(value: unknown): value is AuditEntry {
  if (typeof value !== "object" || value === null) return false;
  const { sequence, time, kind, fields, hash: digest } = value as Record<string, unknown>;
  return (
    typeof sequence === "number" &&
    typeof time === "string" &&
    typeof kind === "string" &&
    typeof digest === "string" &&
    typeof fields === "object" &&
    fields !== null
  );
}
