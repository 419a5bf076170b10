import type { KeysOf } from "./condition-values.js";

/**
 * The JSON of `value` in pieces of about `characters`, so that whoever writes them can let others run in between: together what JSON.stringify gives, but
 * for what JSON cannot hold, which becomes null. Returns how many values there are in it.
 */
export function* jsonPieces(
  value: unknown,
  characters: number,
  keysOf: KeysOf = Object.keys,
): Generator<string, number> {
  const open: Open[] = [];
  let piece = "";
  let next: unknown = value;
  let values = 0;
  for (;;) {
    values += 1;
    if (typeof next === "string" && next.length > characters) {
      piece += '"';
      for (let at = 0; at < next.length; ) {
        const end = at + characters;
        // Half of a surrogate pair would be written as an escape, and its bytes would be others.
        const cut = isHighSurrogate(next.charCodeAt(end - 1)) ? end + 1 : end;
        piece += JSON.stringify(next.slice(at, cut)).slice(1, -1);
        yield piece;
        piece = "";
        at = cut;
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
        return values;
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

function isHighSurrogate(code: number): boolean {
  return code >= 0xd800 && code <= 0xdbff;
}

type Open =
  | { readonly list: readonly unknown[]; at: number }
  | { readonly map: object; readonly keys: readonly string[]; at: number };

function entryOf({ map, keys, at }: Extract<Open, { map: object }>): unknown {
  return (map as Record<string, unknown>)[keys[at] ?? ""];
}
