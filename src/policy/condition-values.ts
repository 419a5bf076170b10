const MAX_SHOWN = 60;
const MAX_RECORDED_TEXT = 256;
const MAX_RECORDED_JSON = 1024;

/** A value as a condition's explanation shows it: JSON, short, every control, format and bidi character escaped. */
export function displayValue(value: unknown): string {
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = value instanceof Date ? `timestamp("${value.toISOString()}")` : (JSON.stringify(value) ?? "(absent)");
  const short = text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
  return short.replaceAll(/[\p{C}\u2028\u2029]/gu, (character) =>
    [...Array(character.length).keys()]
      .map((index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, "0")}`)
      .join(""),
  );
}

/** A value as a decision carries it into the record: as it is when small, else its beginning or its size. */
export function recordedValue(value: unknown): unknown {
  if (value instanceof Date) return value.toISOString();
  if (typeof value === "string" && value.length > MAX_RECORDED_TEXT) return `${value.slice(0, MAX_RECORDED_TEXT)}…`;
  if (typeof value === "object" && value !== null) {
    const json = JSON.stringify(value);
    if (json.length > MAX_RECORDED_JSON) return `(${json.length} characters of JSON)`;
  }
  return value;
}
