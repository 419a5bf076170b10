import { byName } from "./by-name.js";

/** RFC 9110 §5.6.2. */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** RFC 9110 §5.5: what may stand in a value. */
const NO_VALUE = /[^\t\x20-\x7e\x80-\xff]/;
const DIGITS = /^\d{1,15}$/;
const LONG_CHARACTERS = 512;

/** Of the long values the last one that was found good: certificates come again with each call of a connection. */
let lastLong = "";

/** True for a method or the name of a header. */
export const isToken = byName((text) => TOKEN.test(text));

/** True for what may be the value of a header, in Latin-1: it ends no line. */
export function isFieldValue(text: string): boolean {
  if (text.length >= LONG_CHARACTERS && text === lastLong) return true;
  if (NO_VALUE.test(text)) return false;
  if (text.length >= LONG_CHARACTERS) lastLong = text;
  return true;
}

/** What a `Content-Length` says, or undefined where it says no length (RFC 9110 §8.6). */
export function lengthOf(value: string): number | undefined {
  return DIGITS.test(value) ? Number(value) : undefined;
}
