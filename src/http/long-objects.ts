import { Bare, Folded, type Json } from "./json-tokens.js";

/** So many shapes of objects one text may add to those that V8 keeps. */
const MOST_SHAPES = 256;
/** With more keys than this an object is a dictionary whatever its shape. */
const MOST_KEYS_OF_SHAPE = 32;
const HIGHEST_INDEX = 0xff_ff_ff_fe;
/** About what it takes of memory. */
const BYTES_OF = { member: 8, entry: 64, dictionary: 160 };

/** The keys of an object so far, in their order. */
class Shape {
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

/** An object that is being read. */
export interface Members {
  object: Record<string, Json>;
  /** Undefined once it is a dictionary. */
  shape: Shape | undefined;
  /** Whether keys that are numbers make no array of it. */
  isSparse: boolean;
  /** Of the member that is read, and the shape it makes, where another object had it. */
  key: string;
  next: Shape | undefined;
  /** Its keys, folded; undefined while other objects had all of them, in this order. */
  folded: Folded | undefined;
}

/**
 * What the objects of one text are like. V8 makes a hidden class for each order of keys and remembers it: where every object has keys of its own that takes
 * longer than all else, and all of it is tidied up at once. The rows of a table share a few shapes; what comes after those is a dictionary.
 */
export class Shapes {
  readonly #empty = new Shape(0);
  #left = MOST_SHAPES;

  members(): Members {
    const object = new Bare();
    return { object, shape: this.#empty, isSparse: false, key: "", next: undefined, folded: undefined };
  }

  /** Takes `key` for the next one. True where an object had it behind these already: then it is known not to be there twice. */
  follows(members: Members, key: string): boolean {
    members.key = key;
    members.next = members.shape?.followedBy(key);
    return members.next !== undefined;
  }

  foldedKeysOf(members: Members): Folded {
    if (members.folded !== undefined) return members.folded;
    members.folded = new Folded();
    for (const key of Object.keys(members.object)) members.folded.addKey(key);
    return members.folded;
  }

  /** Puts the value of the member that is read: about how many bytes of memory it takes with its key. */
  put(members: Members, value: Json): number {
    const { key, shape } = members;
    let bytes = 0;
    if (shape !== undefined) {
      members.shape = members.next ?? this.#with(key, shape);
      if (members.shape === undefined) {
        members.object = asDictionary(members.object);
        bytes += BYTES_OF.dictionary;
      }
    }
    if (!members.isSparse && members.shape === undefined && isIndexLike(key)) {
      keepSparse(members.object);
      members.isSparse = true;
      bytes += BYTES_OF.dictionary;
    }
    members.object[key] = value;
    return bytes + (members.shape === undefined ? BYTES_OF.entry : BYTES_OF.member);
  }

  /** The shape of an object of `shape` that `key` is added to; undefined where it has to be a dictionary. */
  #with(key: string, shape: Shape): Shape | undefined {
    // What was read within its value may have come to the same.
    const known = shape.followedBy(key);
    if (known !== undefined || isIndexLike(key) || shape.keys >= MOST_KEYS_OF_SHAPE || this.#left === 0) return known;
    this.#left -= 1;
    return shape.add(key);
  }
}

/**
 * An empty list whose numbers V8 keeps side by side, as long as nothing else is put into it: else each fraction is an object of its own, three times as
 * large. What a literal gives depends on all the lists that were made there before; this does not.
 */
export function listOfNumbers(): Json[] {
  const list = JSON.parse("[0.5]") as Json[];
  list.pop();
  return list;
}

/** The same members in an object that V8 keeps as a dictionary. */
function asDictionary(members: Record<string, Json>): Record<string, Json> {
  const dictionary: Record<string, Json> = Object.create(null);
  for (const known of Object.keys(members)) dictionary[known] = members[known] as Json;
  return dictionary;
}

/**
 * For keys that are numbers: else V8 takes `{"300":1}` for an array of 466 elements, 4 KB for 9 bytes of text. That an object had an index beyond what an
 * array is made for settles it, also once that is gone.
 */
function keepSparse(object: Record<string, Json>): void {
  object[HIGHEST_INDEX] = null;
  delete object[HIGHEST_INDEX];
}

/** Whether V8 may take it for the index of an element. */
function isIndexLike(key: string): boolean {
  const code = key.charCodeAt(0);
  return code >= 0x30 && code <= 0x39;
}
