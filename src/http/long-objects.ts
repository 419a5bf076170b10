import type { Json } from "./json-tokens.js";

/** So many shapes of objects one text may add to those that V8 keeps. */
const MOST_SHAPES = 256;
/** With more keys than this an object is a dictionary whatever its shape. */
const MOST_KEYS_OF_SHAPE = 32;
const HIGHEST_INDEX = 0xff_ff_ff_fe;

/** The keys of an object so far, in their order. */
export class Shape {
  readonly keys: number;
  #then: Map<string, Shape> | undefined;

  constructor(keys: number) {
    this.keys = keys;
  }

  followedBy(key: string): Shape | undefined {
    return this.#then?.get(key);
  }

  add(key: string): Shape {
    const next = new Shape(this.keys + 1);
    this.#then ??= new Map();
    this.#then.set(key, next);
    return next;
  }
}

/**
 * What the objects of one text are like. V8 makes a hidden class for each order of keys and remembers it: where every object has keys of its own that takes
 * longer than all else, and all of it is tidied up at once. The rows of a table share a few shapes; what comes after those is a dictionary.
 */
export class Shapes {
  readonly empty = new Shape(0);
  #left = MOST_SHAPES;

  /** The shape of an object of `shape` that `key` is added to; undefined where it has to be a dictionary. */
  with(key: string, shape: Shape): Shape | undefined {
    if (isIndexLike(key)) return undefined;
    const known = shape.followedBy(key);
    if (known !== undefined || shape.keys >= MOST_KEYS_OF_SHAPE || this.#left === 0) return known;
    this.#left -= 1;
    return shape.add(key);
  }
}

/** The same members in an object that V8 keeps as a dictionary. */
export function asDictionary(members: Record<string, Json>): Record<string, Json> {
  const dictionary: Record<string, Json> = Object.create(null);
  for (const known of Object.keys(members)) dictionary[known] = members[known] as Json;
  return dictionary;
}

/**
 * For keys that are numbers: else V8 takes `{"300":1}` for an array of 466 elements, 4 KB for 9 bytes of text. That an object had an index beyond what an
 * array is made for settles it, also once that is gone.
 */
export function keepSparse(object: Record<string, Json>): void {
  object[HIGHEST_INDEX] = null;
  delete object[HIGHEST_INDEX];
}

/** Whether V8 may take it for the index of an element. */
export function isIndexLike(key: string): boolean {
  const code = key.charCodeAt(0);
  return code >= 0x30 && code <= 0x39;
}
