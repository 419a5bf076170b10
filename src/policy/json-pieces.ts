import type { KeysOf } from "./condition-values.js";

/**
 * The JSON of `value` in pieces of about `characters`, so that whoever writes them can let others run in between. Dates become their ISO text, as
 * JSON.stringify makes them; what JSON cannot hold becomes null.
 */
export function* jsonPieces(value: unknown, characters: number, keysOf: KeysOf = Object.keys): Generator<string> {
  const open: Open[] = [];
  let piece = "";
  let next: unknown = value;
  for (;;) {
    if (typeof next === "string" && next.length > characters) {
      // Half of a surrogate pair is written as its escape, so that a cut between the two does no harm.
      piece += '"';
      for (let at = 0; at < next.length; at += characters) {
        piece += JSON.stringify(next.slice(at, at + characters)).slice(1, -1);
        yield piece;
        piece = "";
      }
      piece += '"';
    } else if (typeof next === "object" && next !== null && !(next instanceof Date)) {
      open.push(Array.isArray(next) ? { list: next, at: 0 } : { map: next, keys: keysOf(next), at: 0 });
      piece += Array.isArray(next) ? "[" : "{";
    } else {
      piece += JSON.stringify(next) ?? "null";
    }
    if (piece.length >= characters) {
      yield piece;
      piece = "";
    }
    for (;;) {
      const inner = open.at(-1);
      if (inner === undefined) {
        yield piece;
        return;
      }
      const size = "list" in inner ? inner.list.length : inner.keys.length;
      if (inner.at < size) {
        if (inner.at > 0) piece += ",";
        next = "list" in inner ? inner.list[inner.at] : entryOf(inner);
        if ("keys" in inner) piece += `${JSON.stringify(inner.keys[inner.at])}:`;
        inner.at += 1;
        break;
      }
      piece += "list" in inner ? "]" : "}";
      open.pop();
    }
  }
}

type Open =
  | { readonly list: readonly unknown[]; at: number }
  | { readonly map: object; readonly keys: readonly string[]; at: number };

function entryOf({ map, keys, at }: Extract<Open, { map: object }>): unknown {
  return (map as Record<string, unknown>)[keys[at] ?? ""];
}
