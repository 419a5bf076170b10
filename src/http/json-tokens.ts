import type { Members, Shapes } from "./long-objects.js";
import { Refusal, type RefusalCode } from "./refusal.js";

export type Json = string | number | boolean | null | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

export const MAX_DEPTH = 64;
/** The keys of an object can only be listed all at once, which must not keep the event loop: 10,000 take about 3 ms. */
const MAX_KEYS = 10_000;
/** Nor is a key read in pieces. */
export const MAX_KEY_LENGTH = 16_384;
/** Nor does anybody write a number so; Jackson, for one, reads no longer one. */
const MAX_NUMBER_LENGTH = 1_000;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
/** Nor is white space: what is laid out for people has a few dozen of it in a row. */
export const MAX_WHITESPACE = 4_096;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const LARGE_E = 0x45;
const SMALL_E = 0x65;
const SMALL_U = 0x75;
const SMALL_DIGITS = 10;

/** Keys of one object, folded. A hundred thousand small objects fit a body, and a set for each of them would cost more than all else. */
export class Folded {
  #few: string[] | undefined = [];
  #many: Set<string> | undefined;

  get size(): number {
    return this.#few?.length ?? this.#many?.size ?? 0;
  }

  /** False where it is there already. */
  addKey(key: string): boolean {
    return this.#add(foldOf(key));
  }

  #add(key: string): boolean {
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

/** What JSON is made of, and what of it is refused; how values stand in one another is for who reads them. */
export class JsonTokens {
  protected text: string;
  protected at = 0;
  /** Characters that were there before `text`. */
  protected passed = 0;

  constructor(text: string) {
    this.text = text;
  }

  end(): void {
    this.skipWhitespace();
    if (this.at !== this.text.length) throw this.unexpected();
  }

  /** A key that `object` does not have yet, with the colon behind it. */
  protected key(object: Record<string, Json>, folded: Folded): string {
    const key = this.#textOfKey();
    this.#checkKey(key, object, folded);
    this.#colon();
    return key;
  }

  /** The same of an object that may be like others of its text. */
  protected keyOf(members: Members, shapes: Shapes): void {
    const key = this.#textOfKey();
    if (!shapes.follows(members, key)) this.#checkKey(key, members.object, shapes.foldedKeysOf(members));
    this.#colon();
  }

  #textOfKey(): string {
    this.skipWhitespace();
    if (this.text[this.at] !== '"') throw this.unexpected();
    if (this.text.length > MAX_KEY_LENGTH && this.goesOnFor(MAX_KEY_LENGTH)) throw tooLongKey();
    const key = this.string(MAX_KEY_LENGTH);
    if (key === "__proto__") throw malformed("json-ambiguous-key", 'the key "__proto__" is refused');
    return key;
  }

  #checkKey(key: string, object: Record<string, Json>, folded: Folded): void {
    if (!folded.addKey(key)) {
      const name = JSON.stringify(key);
      if (key in object) throw malformed("json-duplicate-key", `the key ${name} is given twice`);
      throw malformed("json-ambiguous-key", `the key ${name} differs from another only by case`);
    }
    if (folded.size > MAX_KEYS) throw malformed("json-keys", `an object has more than ${MAX_KEYS} keys`);
  }

  #colon(): void {
    this.skipWhitespace();
    if (!this.take(":")) throw this.unexpected();
  }

  /** A string that is written in about `most` characters at most. */
  protected string(most: number): string {
    const plain = this.plainString();
    if (plain !== undefined) return plain;
    const begun = this.at;
    const end = this.endOfText(begun + 1, begun + most);
    if (this.text.charCodeAt(end) !== QUOTE) throw tooLongKey();
    const value = unescaped(this.text.slice(begun, end + 1));
    this.at = end + 1;
    return wellFormed(value);
  }

  /** Whether there is no quotation mark in the next `characters`, where a string begins. */
  protected goesOnFor(characters: number): boolean {
    const end = this.text.indexOf('"', this.at + 1);
    return end === -1 || end - this.at > characters;
  }

  /** A string without escapes, as nearly all are; undefined, and nothing read, for one with them and for what is none. */
  protected plainString(): string | undefined {
    let end = this.at + 1;
    for (let code = this.text.charCodeAt(end); code !== QUOTE; code = this.text.charCodeAt(end)) {
      // NaN at the end of the text.
      if (!(code >= 0x20) || code === BACKSLASH) return undefined;
      end += 1;
    }
    const value = this.text.slice(this.at + 1, end);
    if (!value.isWellFormed()) return undefined;
    this.at = end + 1;
    return value;
  }

  /**
   * Where the string ends within which `from` stands, or, where that is later, the first place from `most` on where it can be cut. By hand, not by a
   * regular expression: those keep a backtracking entry a character, and a string may be megabytes long.
   */
  protected endOfText(from: number, most: number): number {
    let end = from;
    while (end < most) {
      const code = this.text.charCodeAt(end);
      if (code === QUOTE) return end;
      if (code === BACKSLASH) end += this.text.charCodeAt(end + 1) === SMALL_U ? 6 : 2;
      else if (Number.isNaN(code)) throw malformed("json-malformed", "the body ends inside a string");
      else end += 1;
    }
    return end;
  }

  protected atNumber(): boolean {
    const code = this.text.charCodeAt(this.at);
    return (code >= ZERO && code <= NINE) || code === MINUS;
  }

  protected number(): number {
    const small = this.#smallNumber();
    if (small !== undefined) return small;
    NUMBER.lastIndex = this.at;
    const found = NUMBER.exec(this.text);
    if (!found) throw this.unexpected();
    this.at = NUMBER.lastIndex;
    if (found[0].length > MAX_NUMBER_LENGTH) {
      throw malformed("json-number", `a number is written in more than ${MAX_NUMBER_LENGTH} characters`);
    }
    const value = Number(found[0]);
    if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))) {
      throw malformed("json-number", `the number ${found[0].slice(0, 40)} is beyond what every parser reads alike`);
    }
    return value;
  }

  /** A whole number of a few digits, as most are; undefined, and nothing read, for any other. */
  #smallNumber(): number | undefined {
    let value = 0;
    for (let end = this.at; end < this.at + SMALL_DIGITS; end += 1) {
      const code = this.text.charCodeAt(end);
      if (code >= ZERO && code <= NINE) {
        // A zero in front is for the whole grammar.
        if (end > this.at && value === 0) return undefined;
        value = value * 10 + (code - ZERO);
      } else if (end > this.at && code !== POINT && code !== SMALL_E && code !== LARGE_E) {
        this.at = end;
        return value;
      } else return undefined;
    }
    return undefined;
  }

  protected literal<Value extends Json>(word: string, value: Value): Value {
    if (!this.text.startsWith(word, this.at)) throw this.unexpected();
    this.at += word.length;
    return value;
  }

  protected take(character: string): boolean {
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  protected skipWhitespace(): void {
    if (this.text.charCodeAt(this.at) > 0x20) return;
    const most = this.at + MAX_WHITESPACE;
    while (isWhitespace(this.text.charCodeAt(this.at))) {
      if (this.at === most) throw tooMuchWhitespace();
      this.at += 1;
    }
  }

  protected unexpected(): Refusal {
    const found = this.at >= this.text.length ? "the end" : JSON.stringify(this.text[this.at]);
    return malformed("json-malformed", `the body is not one JSON text: ${found} at character ${this.passed + this.at}`);
  }

  protected tooDeep(): Refusal {
    return malformed("json-depth", `the body is nested deeper than ${MAX_DEPTH} levels`);
  }
}

/** What a string stands for, given as it is written, with its quotes. */
export function unescaped(literal: string): string {
  try {
    return JSON.parse(literal) as string;
  } catch (cause) {
    throw new Refusal("json-malformed", 400, "the body holds a malformed string", { cause, jsonRpcCode: -32700 });
  }
}

export function wellFormed(value: string): string {
  if (!value.isWellFormed()) throw malformed("json-surrogate", "a string holds half of a surrogate pair");
  return value;
}

/**
 * An object that inherits nothing: its prototype is empty, frozen and has none itself. V8 keeps such an object in its fast form, which it does not do with
 * what `Object.create(null)` gives.
 */
export const Bare = function Bare() {} as unknown as new () => Record<string, Json>;
Bare.prototype = Object.freeze(Object.create(null));

/** Equal for keys that some parser takes for one another. Up, then down: also folds the letters that only fold one way (the Kelvin sign, the long s), as Go does. */
function foldOf(key: string): string {
  return LOWER.test(key) ? key : key.toUpperCase().toLowerCase();
}

/** ASCII without capitals is its own fold. */
const LOWER = /^[ -@[-~]*$/;

function isWhitespace(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}

function tooMuchWhitespace(): Refusal {
  return malformed("json-malformed", `more than ${MAX_WHITESPACE} characters of white space in a row`);
}

function tooLongKey(): Refusal {
  return malformed("json-keys", `a key is longer than ${MAX_KEY_LENGTH} characters`);
}

export function malformed(code: RefusalCode, message: string): Refusal {
  return new Refusal(code, 400, message, { jsonRpcCode: -32700 });
}
