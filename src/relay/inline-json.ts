import type { Json } from "../http/strict-json.js";

/**
 * `{invoice:1017, amount:4200}`: JSON as a person would jot it down, without what the rules call sensitive. Of what is longer than `most` characters only a
 * beginning that is longer too: a megabyte is not written out to show a line.
 */
export function inlineJson(value: Json, path: string, sensitive: ReadonlySet<string>, most: number): string {
  if (sensitive.has(path)) return "(sensitive)";
  if (typeof value === "string") return JSON.stringify(value.length > most ? value.slice(0, most + 1) : value);
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const isList = Array.isArray(value);
  let text = isList ? "[" : "{";
  const begun = text.length;
  for (const key of isList ? value.keys() : Object.keys(value)) {
    if (text.length > most) return text;
    if (text.length > begun) text += ", ";
    if (!isList) text += `${key}:`;
    const member = (value as Readonly<Record<string | number, Json>>)[key] as Json;
    text += inlineJson(member, isList ? path : `${path}.${key}`, sensitive, most - text.length);
  }
  return text + (isList ? "]" : "}");
}
