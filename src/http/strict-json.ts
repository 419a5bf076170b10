import type { Pause } from "../platform/turns.js";
import { type BodyBytes, textOf } from "./body-bytes.js";
import { JsonInPieces } from "./json-in-pieces.js";
import { Bare, Folded, type Json, type JsonObject, JsonTokens, MAX_DEPTH } from "./json-tokens.js";
import { Shapes } from "./long-objects.js";

export type { Json, JsonObject } from "./json-tokens.js";

/** What is no longer than this is read at once: the whole of it takes less of the event loop's time than a turn may. */
const AT_ONCE_BYTES = 16 * 1024;
/** A turn's share of a long text, in bytes of memory that its values take and characters: about 1 ms. */
const BYTES_A_TURN = 48 * 1024;
/** Objects of a short text that are made without looking at what they have in common. */
const FEW_OBJECTS = 64;
/** More characters than a text has; small enough for V8 to compare fast. */
const ANY_LENGTH = 2 ** 30;

/** Whether reading it, and whatever follows its values, takes so long that it has to be done in turns. */
export function isLong({ length }: Pick<Buffer, "length">): boolean {
  return length > AT_ONCE_BYTES;
}

/**
 * Parses one JSON text (RFC 8259) of which every parser must make the same value: valid UTF-8 without a byte order mark, no key twice,
 * none that differs from another only by case (Go matches keys so), no `__proto__`, no number that a double cannot hold, no lone
 * surrogate, at most 64 levels and 10,000 keys in an object. Objects inherit nothing. Throws Refusal (400, JSON-RPC −32700) with a code for each cause.
 */
export function parseStrictJson(bytes: Buffer): Json {
  const reader = new Reader(textOf(bytes));
  const value = reader.value(0);
  reader.end();
  return value;
}

/** The same value, or the same refusal, without keeping the event loop: what is long is read in pieces, with a `pause` before each. */
export async function parseStrictJsonInTurns(body: BodyBytes, pause: Pause): Promise<Json> {
  if (!isLong(body)) return parseStrictJson(body.bytes());
  await pause();
  const reader = new JsonInPieces(body.texts());
  do await pause();
  while (!reader.read(BYTES_A_TURN));
  reader.end();
  return reader.value;
}

class Reader extends JsonTokens {
  #objects = 0;
  #shapes: Shapes | undefined;

  value(depth: number): Json {
    if (depth > MAX_DEPTH) throw this.tooDeep();
    this.skipWhitespace();
    switch (this.text[this.at]) {
      case "{":
        return this.#object(depth);
      case "[":
        return this.#array(depth);
      case '"':
        return this.string(ANY_LENGTH);
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

  #object(depth: number): JsonObject {
    this.#objects += 1;
    if (this.#objects > FEW_OBJECTS) return this.#oneOfMany(depth);
    const object = new Bare();
    this.at += 1;
    this.skipWhitespace();
    if (this.take("}")) return object;
    const folded = new Folded();
    for (;;) {
      const key = this.key(object, folded);
      object[key] = this.value(depth + 1);
      this.skipWhitespace();
      if (this.take("}")) return object;
      if (!this.take(",")) throw this.unexpected();
    }
  }

  #oneOfMany(depth: number): JsonObject {
    this.#shapes ??= new Shapes();
    const members = this.#shapes.members();
    this.at += 1;
    this.skipWhitespace();
    if (this.take("}")) return members.object;
    for (;;) {
      this.keyOf(members, this.#shapes);
      // The value first: what is within it goes by the shapes too.
      this.#shapes.put(members, this.value(depth + 1));
      this.skipWhitespace();
      if (this.take("}")) return members.object;
      if (!this.take(",")) throw this.unexpected();
    }
  }

  #array(depth: number): Json[] {
    const array: Json[] = [];
    this.at += 1;
    this.skipWhitespace();
    if (this.take("]")) return array;
    for (;;) {
      array.push(this.value(depth + 1));
      this.skipWhitespace();
      if (this.take("]")) return array;
      if (!this.take(",")) throw this.unexpected();
    }
  }
}
