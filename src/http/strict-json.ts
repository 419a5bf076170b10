import { Refusal, type RefusalCode } from "./refusal.js";

export type Json = string | number | boolean | null | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

const MAX_DEPTH = 64;
/** The keys of an object can only be listed all at once, which must not keep the event loop: 10,000 take about 3 ms. */
const MAX_KEYS = 10_000;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WHITESPACE = /[ \t\n\r]*/y;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Parses one JSON text (RFC 8259) of which every parser must make the same value: valid UTF-8 without a byte order mark, no key twice,
 * none that differs from another only by case (Go matches keys so), no `__proto__`, no number that a double cannot hold, no lone
 * surrogate, at most 64 levels and 10,000 keys in an object. Objects inherit nothing. Throws Refusal (400, JSON-RPC −32700) with a code for each cause.
 */
export function parseStrictJson(bytes: Buffer): Json {
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) {
    throw malformed("json-bom", "the body starts with a byte order mark");
  }
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch (cause) {
    throw new Refusal("json-utf8", 400, "the body is not valid UTF-8", { cause, jsonRpcCode: -32700 });
  }
  const reader = new Reader(text);
  const value = reader.value(0);
  reader.end();
  return value;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const POINT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const LARGE_E = 0x45;
const SMALL_E = 0x65;
const SMALL_DIGITS = 10;

/** Keys of one object, folded. A hundred thousand small objects fit a body, and a set for each of them would cost more than all else. */
class Folded {
  #few: string[] | undefined = [];
  #many: Set<string> | undefined;

  get size(): number {
    return this.#few?.length ?? this.#many?.size ?? 0;
  }

  /** False where it is there already. */
  add(key: string): boolean {
    if (this.#few !== undefined) {
      if (this.#few.includes(key)) return false;
      if (this.#few.length < FEW) {
        this.#few.push(key);
        return true;
      }
      this.#many = new Set(this.#few);
      this.#few = undefined;
    }
    const { size } = this.#many ?? new Set();
    return this.#many?.add(key).size !== size;
  }
}

const FEW = 8;

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(depth: number): Json {
    if (depth > MAX_DEPTH) throw malformed("json-depth", `the body is nested deeper than ${MAX_DEPTH} levels`);
    this.#skipWhitespace();
    switch (this.#text[this.#at]) {
      case "{":
        return this.#object(depth);
      case "[":
        return this.#array(depth);
      case '"':
        return this.#string();
      case "t":
        return this.#literal("true", true);
      case "f":
        return this.#literal("false", false);
      case "n":
        return this.#literal("null", null);
      default:
        return this.#number();
    }
  }

  end(): void {
    this.#skipWhitespace();
    if (this.#at !== this.#text.length) throw this.#unexpected();
  }

  #object(depth: number): JsonObject {
    const object = new Bare();
    this.#at += 1;
    this.#skipWhitespace();
    if (this.#take("}")) return object;
    const folded = new Folded();
    for (;;) {
      this.#skipWhitespace();
      if (this.#text[this.#at] !== '"') throw this.#unexpected();
      const key = this.#string();
      if (key === "__proto__") throw malformed("json-ambiguous-key", 'the key "__proto__" is refused');
      if (!folded.add(foldOf(key))) {
        const name = JSON.stringify(key);
        if (key in object) throw malformed("json-duplicate-key", `the key ${name} is given twice`);
        throw malformed("json-ambiguous-key", `the key ${name} differs from another only by case`);
      }
      if (folded.size > MAX_KEYS) throw malformed("json-keys", `an object has more than ${MAX_KEYS} keys`);
      this.#skipWhitespace();
      if (!this.#take(":")) throw this.#unexpected();
      object[key] = this.value(depth + 1);
      this.#skipWhitespace();
      if (this.#take("}")) return object;
      if (!this.#take(",")) throw this.#unexpected();
    }
  }

  #array(depth: number): Json[] {
    const array: Json[] = [];
    this.#at += 1;
    this.#skipWhitespace();
    if (this.#take("]")) return array;
    for (;;) {
      array.push(this.value(depth + 1));
      this.#skipWhitespace();
      if (this.#take("]")) return array;
      if (!this.#take(",")) throw this.#unexpected();
    }
  }

  #string(): string {
    const plain = this.#plainString();
    if (plain !== undefined) return plain;
    // By hand, not by a regular expression: those keep a backtracking entry a character, and a string may be megabytes long.
    let end = this.#text.indexOf('"', this.#at + 1);
    while (end !== -1 && this.#escaped(end)) end = this.#text.indexOf('"', end + 1);
    if (end === -1) throw malformed("json-malformed", "the body ends inside a string");
    const literal = this.#text.slice(this.#at, end + 1);
    let value: string;
    try {
      value = JSON.parse(literal) as string;
    } catch (cause) {
      throw new Refusal("json-malformed", 400, "the body holds a malformed string", { cause, jsonRpcCode: -32700 });
    }
    this.#at = end + 1;
    if (!value.isWellFormed()) throw malformed("json-surrogate", "a string holds half of a surrogate pair");
    return value;
  }

  /** A string without escapes, as nearly all are; undefined, and nothing read, for one with them and for what is none. */
  #plainString(): string | undefined {
    let end = this.#at + 1;
    for (let code = this.#text.charCodeAt(end); code !== QUOTE; code = this.#text.charCodeAt(end)) {
      // NaN at the end of the text.
      if (!(code >= 0x20) || code === BACKSLASH) return undefined;
      end += 1;
    }
    const value = this.#text.slice(this.#at + 1, end);
    if (!value.isWellFormed()) return undefined;
    this.#at = end + 1;
    return value;
  }

  #escaped(quote: number): boolean {
    let backslashes = 0;
    while (this.#text.charCodeAt(quote - 1 - backslashes) === BACKSLASH) backslashes += 1;
    return backslashes % 2 === 1;
  }

  #number(): number {
    const small = this.#smallNumber();
    if (small !== undefined) return small;
    NUMBER.lastIndex = this.#at;
    const found = NUMBER.exec(this.#text);
    if (!found) throw this.#unexpected();
    this.#at = NUMBER.lastIndex;
    const value = Number(found[0]);
    if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))) {
      throw malformed("json-number", `the number ${found[0].slice(0, 40)} is beyond what every parser reads alike`);
    }
    return value;
  }

  /** A whole number of a few digits, as most are; undefined, and nothing read, for any other. */
  #smallNumber(): number | undefined {
    let value = 0;
    for (let end = this.#at; end < this.#at + SMALL_DIGITS; end += 1) {
      const code = this.#text.charCodeAt(end);
      if (code >= ZERO && code <= NINE) {
        // A zero in front is for the whole grammar.
        if (end > this.#at && value === 0) return undefined;
        value = value * 10 + (code - ZERO);
      } else if (end > this.#at && code !== POINT && code !== SMALL_E && code !== LARGE_E) {
        this.#at = end;
        return value;
      } else return undefined;
    }
    return undefined;
  }

  #literal<Value extends Json>(word: string, value: Value): Value {
    if (!this.#text.startsWith(word, this.#at)) throw this.#unexpected();
    this.#at += word.length;
    return value;
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at += 1;
    return true;
  }

  #skipWhitespace(): void {
    const code = this.#text.charCodeAt(this.#at);
    if (code > 0x20) return;
    WHITESPACE.lastIndex = this.#at;
    WHITESPACE.test(this.#text);
    this.#at = WHITESPACE.lastIndex;
  }

  #unexpected(): Refusal {
    const found = this.#at >= this.#text.length ? "the end" : JSON.stringify(this.#text[this.#at]);
    return malformed("json-malformed", `the body is not one JSON text: ${found} at character ${this.#at}`);
  }
}

/**
 * An object that inherits nothing: its prototype is empty, frozen and has none itself. V8 keeps such an object in its fast form, which it does not do with
 * what `Object.create(null)` gives.
 */
const Bare = function Bare() {} as unknown as new () => Record<string, Json>;
Bare.prototype = Object.freeze(Object.create(null));

/** Equal for keys that some parser takes for one another. Up, then down: also folds the letters that only fold one way (the Kelvin sign, the long s), as Go does. */
function foldOf(key: string): string {
  return LOWER.test(key) ? key : key.toUpperCase().toLowerCase();
}

/** ASCII without capitals is its own fold. */
const LOWER = /^[ -@[-~]*$/;

function malformed(code: RefusalCode, message: string): Refusal {
  return new Refusal(code, 400, message, { jsonRpcCode: -32700 });
}
