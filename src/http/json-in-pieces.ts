import { Bare, Folded, type Json, JsonTokens, MAX_DEPTH, malformed, unescaped, wellFormed } from "./json-tokens.js";

/** A long string, and white space, count as a value for so many characters. */
const CHARACTERS_OF_VALUE = 16;
/** So much of a string is read at once. */
const PIECE_CHARACTERS = 32 * 1024;

/**
 * What a long text may hold. A list of millions is moved as a whole when it grows, and whatever is there is looked at when memory is tidied up: both keep the
 * event loop. A table of 60,000 rows fits.
 */
const MAX_VALUES = 512 * 1024;
const MAX_LISTS_AND_OBJECTS = 64 * 1024;

/** A list or an object that is not closed yet. */
interface Open {
  readonly list: Json[] | undefined;
  readonly object: Record<string, Json>;
  readonly folded: Folded;
  /** Of the member that is read. */
  key: string;
}

const NO_OBJECT = new Bare();
const NO_KEYS = new Folded();

/** Reads one strict JSON value, a piece at a time. */
export class JsonInPieces extends JsonTokens {
  readonly #open: Open[] = [];
  /** What has been read of a string that is read in pieces. */
  #parts: string[] | undefined;
  #value: Json = null;
  #values = 0;
  #listsAndObjects = 0;

  /** Once `read` has said that it is complete. */
  get value(): Json {
    return this.#value;
  }

  /** Reads on for about so many values: true when there is no more to read of this one. Throws Refusal. */
  read(values: number): boolean {
    let left = values;
    while (left > 0) {
      const begun = this.at;
      const value = this.#parts === undefined ? this.#next() : this.#pieceOf(this.#parts);
      if (value !== undefined && this.#isWhole(value)) return true;
      left -= 1 + Math.floor((this.at - begun) / CHARACTERS_OF_VALUE);
    }
    return false;
  }

  /** The next value that has nothing within it; undefined where one begins that has. */
  #next(): Json | undefined {
    if (this.#open.length > MAX_DEPTH) throw this.tooDeep();
    this.#values += 1;
    if (this.#values > MAX_VALUES) throw malformed("json-values", `the body holds more than ${MAX_VALUES} values`);
    this.skipWhitespace();
    switch (this.text[this.at]) {
      case "{":
        return this.#object();
      case "[":
        return this.#list();
      case '"':
        return this.#string();
      case "t":
        return this.literal("true", true);
      case "f":
        return this.literal("false", false);
      case "n":
        return this.literal("null", null);
      default:
        return this.number();
    }
  }

  #object(): Json | undefined {
    this.#countListOrObject();
    const object = new Bare();
    this.at += 1;
    this.skipWhitespace();
    if (this.take("}")) return object;
    const folded = new Folded();
    this.#open.push({ list: undefined, object, folded, key: this.key(object, folded) });
    return undefined;
  }

  #list(): Json | undefined {
    this.#countListOrObject();
    const list: Json[] = [];
    this.at += 1;
    this.skipWhitespace();
    if (this.take("]")) return list;
    this.#open.push({ list, object: NO_OBJECT, folded: NO_KEYS, key: "" });
    return undefined;
  }

  #countListOrObject(): void {
    this.#listsAndObjects += 1;
    if (this.#listsAndObjects <= MAX_LISTS_AND_OBJECTS) return;
    throw malformed("json-values", `the body holds more than ${MAX_LISTS_AND_OBJECTS} lists and objects`);
  }

  #string(): string | undefined {
    const plain = this.goesOnFor(PIECE_CHARACTERS) ? undefined : this.plainString();
    if (plain !== undefined) return plain;
    this.at += 1;
    this.#parts = [];
    return this.#pieceOf(this.#parts);
  }

  /** The string when this was its last piece. */
  #pieceOf(parts: string[]): string | undefined {
    const end = this.endOfText(this.at, this.at + PIECE_CHARACTERS);
    parts.push(unescaped(`"${this.text.slice(this.at, end)}"`));
    this.at = end;
    if (!this.take('"')) return undefined;
    this.#parts = undefined;
    return wellFormed(parts.join(""));
  }

  /** Puts a value where it belongs, and closes what ends behind it: true when that is all. */
  #isWhole(value: Json): boolean {
    let complete = value;
    for (let inner = this.#open.at(-1); inner !== undefined; inner = this.#open.at(-1)) {
      const { list, object, folded } = inner;
      if (list === undefined) object[inner.key] = complete;
      else list.push(complete);
      this.skipWhitespace();
      if (this.take(",")) {
        if (list === undefined) inner.key = this.key(object, folded);
        return false;
      }
      if (!this.take(list === undefined ? "}" : "]")) throw this.unexpected();
      complete = list ?? object;
      this.#open.pop();
    }
    this.#value = complete;
    return true;
  }
}
