import { displayText } from "../control-api/display-text.js";

/** No single field is worth more room than this. */
const MAX_FIELD_CHARACTERS = 2_000;

/**
 * A copy of a value from the daemon in which every text has passed `displayText`. The daemon strips already (D23); the
 * terminal does it again, because it is the terminal that an attacker's bytes would drive.
 */
export function displayable<Value>(value: Value): Value {
  return cleaned(value) as Value;
}

function cleaned(value: unknown): unknown {
  if (typeof value === "string") return displayText(value, MAX_FIELD_CHARACTERS);
  if (Array.isArray(value)) return value.map(cleaned);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, field]) => [displayText(name, MAX_FIELD_CHARACTERS), cleaned(field)]),
  );
}

/** A text of several lines as displayable lines, each with its indentation. */
export function displayableLines(text: string): string[] {
  return text
    .trimEnd()
    .split(/\r?\n/)
    .map((line) => {
      const text = line.trimStart();
      return " ".repeat(Math.min(line.length - text.length, 40)) + displayText(text, MAX_FIELD_CHARACTERS);
    });
}
