import {
  type Json,
  JsonTokens,
  MAX_DEPTH,
  MAX_KEY_LENGTH,
  MAX_WHITESPACE,
  malformed,
  unescaped,
  wellFormed,
} from "./json-tokens.js";
import { listOfNumbers, type Members, Shapes } from "./long-objects.js";

/** So much of a string is read at once. */
const PIECE_CHARACTERS = 16 * 1024;
/** No step reads further than this: a key with white space on all sides, or a piece of a string. */
const AHEAD = Math.max(MAX_KEY_LENGTH, PIECE_CHARACTERS) + 4 * MAX_WHITESPACE + 64;

/**
 * What the values of a long text may take of memory, about, beside their characters: what is alive is moved when memory is tidied up, all at once, and that
 * takes one to three milliseconds for each MiB. 170,000 numbers fit, or a table of 20,000 rows, or 7,500 objects that have no key in common.
 */
const MAX_BYTES = 2 * 1024 * 1024;
/** A list has room for half as many again when it has grown. */
const BYTES_OF = { element: 12, list: 48, object: 32, text: 32 };

/** A list or an object that is not closed yet. */
type Open = { readonly list: Json[] } | { readonly list: undefined; readonly members: Members };

/** Reads one strict JSON value, a piece at a time. */
export class JsonInPieces extends JsonTokens {
  readonly #texts: Iterator<string, undefined>;
  readonly #open: Open[] = [];
  readonly #shapes = new Shapes();
  /** What has been read of a string that is read in pieces. */
  #parts: string[] | undefined;
  #value: Json = null;
  /** About what the values take of memory so far, and of the work so far. */
  #bytes = 0;

  /** `texts`: what the text consists of. */
  constructor(texts: Iterator<string, undefined>) {
    super("");
    this.#texts = texts;
  }

  override end(): void {
    this.#lookAhead();
    super.end();
  }

  /** Once `read` has said that it is complete. */
  get value(): Json {
    return this.#value;
  }

  /** Reads on until so many bytes more of memory, or characters, have been worked on: true when there is no more to read of this one. Throws Refusal. */
  read(bytes: number): boolean {
    const end = this.#work() + bytes;
    while (this.#work() < end) {
      this.#lookAhead();
      const value = this.#parts === undefined ? this.#next() : this.#pieceOf(this.#parts);
      if (value !== undefined && this.#isWhole(value)) return true;
    }
    return false;
  }

  #work(): number {
    return this.passed + this.at + this.#bytes;
  }

  /** What has been read of the text is let go of, and the next steps find what they need. */
  #lookAhead(): void {
    while (this.text.length - this.at < AHEAD) {
      const { value, done } = this.#texts.next();
      if (done) return;
      this.passed += this.at;
      this.text = this.text.slice(this.at) + value;
      this.at = 0;
    }
  }

  /** The next value that has nothing within it; undefined where one begins that has. */
  #next(): Json | undefined {
    if (this.#open.length > MAX_DEPTH) throw this.tooDeep();
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

  #weigh(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > MAX_BYTES)
      throw malformed("json-values", "the body holds more values than are read of one: send several");
  }

  #object(): Json | undefined {
    this.#weigh(BYTES_OF.object);
    const members = this.#shapes.members();
    this.at += 1;
    this.skipWhitespace();
    if (this.take("}")) return members.object;
    this.keyOf(members, this.#shapes);
    this.#open.push({ list: undefined, members });
    return undefined;
  }

  #list(): Json | undefined {
    this.#weigh(BYTES_OF.list);
    this.at += 1;
    this.skipWhitespace();
    if (this.take("]")) return [];
    const list = this.atNumber() ? listOfNumbers() : [];
    this.#open.push({ list });
    return undefined;
  }

  #string(): string | undefined {
    this.#weigh(BYTES_OF.text);
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
      this.#lookAhead();
      if (inner.list === undefined) this.#weigh(this.#shapes.put(inner.members, complete));
      else this.#push(inner.list, complete);
      this.skipWhitespace();
      if (this.take(",")) {
        if (inner.list === undefined) this.keyOf(inner.members, this.#shapes);
        return false;
      }
      if (!this.take(inner.list === undefined ? "}" : "]")) throw this.unexpected();
      complete = inner.list ?? inner.members.object;
      this.#open.pop();
    }
    this.#value = complete;
    return true;
  }

  #push(list: Json[], value: Json): void {
    this.#weigh(BYTES_OF.element);
    list.push(value);
  }
}
