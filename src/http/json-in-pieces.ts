import { type Json, JsonTokens, MAX_DEPTH, malformed, unescaped, wellFormed } from "./json-tokens.js";
import { type Members, Shapes } from "./long-objects.js";

/** So much of a string is read at once. */
const PIECE_CHARACTERS = 32 * 1024;

/**
 * What the values of a long text may take of memory, about: whatever is alive is moved when memory is tidied up, at once, and that is about a millisecond
 * for each MiB. Characters count for little, they are moved fast or not at all.
 */
const MAX_BYTES = 4 * 1024 * 1024;
const BYTES_OF = { value: 12, fraction: 16, text: 32, list: 48, object: 40 };

/** A list or an object that is not closed yet. */
type Open = { readonly list: Json[] } | { readonly list: undefined; readonly members: Members };

/** Reads one strict JSON value, a piece at a time. */
export class JsonInPieces extends JsonTokens {
  readonly #open: Open[] = [];
  readonly #shapes = new Shapes();
  /** What has been read of a string that is read in pieces. */
  #parts: string[] | undefined;
  #value: Json = null;
  /** About what the values take of memory so far, and of the work so far. */
  #bytes = 0;

  /** Once `read` has said that it is complete. */
  get value(): Json {
    return this.#value;
  }

  /** Reads on until so many bytes more of memory, or characters, have been worked on: true when there is no more to read of this one. Throws Refusal. */
  read(bytes: number): boolean {
    const begun = this.at + this.#bytes;
    while (this.at + this.#bytes < begun + bytes) {
      const value = this.#parts === undefined ? this.#next() : this.#pieceOf(this.#parts);
      if (value !== undefined && this.#isWhole(value)) return true;
    }
    return false;
  }

  /** The next value that has nothing within it; undefined where one begins that has. */
  #next(): Json | undefined {
    if (this.#open.length > MAX_DEPTH) throw this.tooDeep();
    this.#weigh(BYTES_OF.value);
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
        return this.#number();
    }
  }

  #weigh(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > MAX_BYTES) throw malformed("json-values", "the body holds more values than are read of one");
  }

  #number(): number {
    const value = this.number();
    // Others are kept beside the list or the object that they are in.
    if (!Number.isInteger(value)) this.#weigh(BYTES_OF.fraction);
    return value;
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
    const list: Json[] = [];
    this.at += 1;
    this.skipWhitespace();
    if (this.take("]")) return list;
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
      if (inner.list === undefined) this.#weigh(this.#shapes.put(inner.members, complete));
      else inner.list.push(complete);
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
}
