const MAX_SHOWN = 60;
const MAX_RECORDED_TEXT = 256;
const MAX_RECORDED_JSON = 1024;

/** Lists the keys of a map. */
export type KeysOf = (map: object) => readonly string[];

/** A value as a condition's explanation shows it: JSON, short, every control, format and bidi character escaped. */
export function displayValue(value: unknown, keysOf: KeysOf = Object.keys): string {
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text =
    value instanceof Date
      ? `timestamp("${value.toISOString()}")`
      : (beginningOfJson(value, MAX_SHOWN, keysOf) ?? "(absent)");
  const short = text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
  return escapedText(short);
}

/** `text` with what is not seen, or moves what is seen, as its escape: nothing is lost, and a terminal does nothing but show it. */
export function escapedText(text: string): string {
  return text.replaceAll(NOT_SEEN, (character) =>
    [...Array(character.length).keys()]
      .map((index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, "0")}`)
      .join(""),
  );
}

const NOT_SEEN = /[\p{C}\u2028\u2029]/gu;

/** A value as a decision carries it into the record: as it is when small, else its beginning or that it is large. */
export function recordedValue(value: unknown, keysOf: KeysOf = Object.keys): unknown {
  if (value instanceof Date) return value.toISOString();
  if (typeof value === "string" && value.length > MAX_RECORDED_TEXT) return `${value.slice(0, MAX_RECORDED_TEXT)}…`;
  if (typeof value === "object" && value !== null) {
    // An element takes two characters at least, with its comma.
    const isLong = Array.isArray(value) && 2 * value.length > MAX_RECORDED_JSON;
    const json = isLong ? "" : (beginningOfJson(value, MAX_RECORDED_JSON, keysOf) ?? "");
    if (isLong || json.length > MAX_RECORDED_JSON) return `(more than ${MAX_RECORDED_JSON} characters of JSON)`;
  }
  return value;
}

/** The JSON of `value`, or, where that is longer than `most` characters, a beginning of it that is longer too: a megabyte is not written out to show a line. */
function beginningOfJson(value: unknown, most: number, keysOf: KeysOf): string | undefined {
  if (typeof value === "string") return JSON.stringify(value.slice(0, most + 1));
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const isList = Array.isArray(value);
  let text = isList ? "[" : "{";
  // Keys are listed, values only as far as they are shown.
  for (const key of isList ? value.keys() : keysOf(value)) {
    if (text.length > most) return text;
    if (text.length > 1) text += ",";
    if (!isList) text += `${JSON.stringify(String(key).slice(0, most))}:`;
    text += beginningOfJson((value as Record<string | number, unknown>)[key], most - text.length, keysOf) ?? "null";
  }
  return text + (isList ? "]" : "}");
}
