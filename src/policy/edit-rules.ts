import { isMap, isScalar, isSeq, type Pair, parseDocument, stringify, type YAMLMap } from "yaml";
import { CodedError } from "../coded-error.js";

/** A rule as it stands in a file: keys of the rule language. */
export type WrittenRule = Readonly<Record<string, unknown>> & { readonly name: string };

/**
 * `text` of a rule file with `rule` at its end, all else byte by byte as it was. `comment` goes above it. Throws CodedError `policy-edit` for a
 * file that does not parse or whose `rules` are written between brackets.
 */
export function withRule(text: string, rule: WrittenRule, comment = ""): string {
  const document = parse(text);
  const rules = document.get("rules", true);
  const above = comment === "" ? "" : `${comment.trimEnd()}\n`;
  const item = (indent: string) => indented(`${above}${stringify([rule], { lineWidth: 0 })}`, indent);
  if (document.contents === null) return `${text}${endsLine(text)}rules:\n${item("  ")}`;
  if (rules === undefined) throw cannot("the file has no rules: key at its top");
  if (isScalar(rules) && rules.value === null) {
    // `rules:` with nothing below it: what is to come goes right behind the key.
    const after = rules.range?.[0] ?? text.length;
    const lineEnd = text.indexOf("\n", after);
    const at = lineEnd === -1 ? text.length : lineEnd + 1;
    const head = text.slice(0, at);
    return `${head}${endsLine(head)}${item("  ")}${text.slice(at)}`;
  }
  if (!isSeq(rules) || rules.flow === true) throw cannot("the rules are written between brackets");
  const [first] = rules.items;
  const start = isMap(first) ? first.range?.[0] : undefined;
  const end = rules.range?.[1];
  if (start === undefined || end === undefined) throw cannot("the rules are not a list of maps");
  const lineStart = text.lastIndexOf("\n", start - 1) + 1;
  const indent = /^\s*/.exec(text.slice(lineStart))?.[0] ?? "";
  const before = text.slice(0, end).trimEnd();
  return `${before}\n\n${item(indent)}${text.slice(end).replace(/^\n+/, "")}`;
}

/**
 * `text` with one key of the rule `name` set to `value`, or taken away where `value` is undefined; all else byte by byte as it was. Throws
 * CodedError `policy-edit` where there is no such rule, or where it is written so that it cannot be changed without writing it anew.
 */
export function withRuleKey(text: string, name: string, key: string, value: unknown): string {
  return withKey(text, ruleNamed(text, name), key, value);
}

/** As `withRuleKey`, for a key at the top of the file, where it is seen. */
export function withTopKey(text: string, key: string, value: unknown): string {
  const { contents } = parse(text);
  if (!isMap(contents)) throw cannot("the file is no map");
  const first = rangeStart(contents.items[0]?.key);
  if (value === undefined || contents.has(key) || contents.flow === true || first === undefined) {
    return withKey(text, contents, key, value);
  }
  return `${text.slice(0, first)}${key}: ${writtenAs(value, false)}\n${text.slice(first)}`;
}

/** As `withRuleKey`, for a key of the map at `path`: `["identities", "agents/billing"]` of `agentid.yaml`. */
export function withKeyAt(text: string, path: readonly string[], key: string, value: unknown): string {
  const map = parse(text).getIn(path, true);
  if (!isMap(map)) throw cannot(`there is no map ${path.join(": ")}`);
  return withKey(text, map, key, value);
}

/** What stands at `path`; undefined where nothing does. Throws CodedError `policy-edit` for a file that does not parse. */
export function valueAt(text: string, path: readonly string[]): unknown {
  return parse(text).getIn(path);
}

function withKey(text: string, map: YAMLMap, key: string, value: unknown): string {
  const pair = map.items.find((each) => isScalar(each.key) && each.key.value === key);
  const written = writtenAs(value, map.flow === true);
  if (written.includes("\n")) throw cannot(`${key} does not fit on one line`);
  if (pair !== undefined) return value === undefined ? without(text, map, pair) : replaced(text, pair, written);
  if (value === undefined) return text;
  const last = map.items.at(-1);
  const end = rangeEnd(last?.value) ?? rangeEnd(last?.key);
  if (end === undefined) {
    const [from = 0, to = 0] = map.range ?? [];
    if (!/^\{\s*\}$/.test(text.slice(from, to))) throw cannot("the map is empty");
    return `${text.slice(0, from)}{ ${key}: ${written} }${text.slice(to)}`;
  }
  if (map.flow === true) return `${text.slice(0, end)}, ${key}: ${written}${text.slice(end)}`;
  const at = endOfContent(text, end);
  const indent = " ".repeat(columnOf(text, rangeStart(map.items[0]?.key) ?? 0));
  return `${text.slice(0, at)}\n${indent}${key}: ${written}${text.slice(at)}`;
}

/** Between braces a comma or a brace of a plain scalar would end it: JSON is YAML there. */
function writtenAs(value: unknown, flow: boolean): string {
  if (value === undefined) return "";
  return flow ? JSON.stringify(value) : stringify(value, { lineWidth: 0 }).trimEnd();
}

function replaced(text: string, pair: Pair, written: string): string {
  const start = rangeStart(pair.value);
  const end = rangeEnd(pair.value);
  if (start === undefined || end === undefined) throw cannot("the value cannot be found");
  const tail = text.slice(start, end);
  // A block scalar's range takes its line end along.
  return `${text.slice(0, start)}${written}${/\n$/.test(tail) ? "\n" : ""}${text.slice(end)}`;
}

function without(text: string, map: YAMLMap, pair: Pair): string {
  const start = rangeStart(pair.key);
  const end = rangeEnd(pair.value) ?? rangeEnd(pair.key);
  if (start === undefined || end === undefined) throw cannot("the key cannot be found");
  if (map.flow === true) {
    if (map.items[0] === pair) return text.slice(0, start) + text.slice(end).replace(/^\s*,\s*/, "");
    return text.slice(0, start).replace(/,\s*$/, "") + text.slice(end);
  }
  const lineStart = text.lastIndexOf("\n", start - 1) + 1;
  if (map.items.length === 1) throw cannot("nothing would be left of its map");
  if (/\S/.test(text.slice(lineStart, start))) throw cannot("the key begins its map in the midst of a line");
  const lineEnd = text.indexOf("\n", endOfContent(text, end));
  return text.slice(0, lineStart) + (lineEnd === -1 ? "" : text.slice(lineEnd + 1));
}

function ruleNamed(text: string, name: string): YAMLMap {
  const rules = parse(text).get("rules", true);
  const items = isSeq(rules) ? rules.items : [];
  const rule = items.find((item): item is YAMLMap => isMap(item) && item.get("name") === name);
  if (rule === undefined) throw cannot(`there is no rule ${name} in the file`);
  return rule;
}

function parse(text: string): ReturnType<typeof parseDocument> {
  const document = parseDocument(text, { version: "1.2", schema: "core", merge: false, prettyErrors: false });
  const [error] = document.errors;
  if (error !== undefined) throw cannot(error.message);
  return document;
}

function cannot(why: string): CodedError {
  return new CodedError("policy-edit", `cannot be changed in place: ${why}`);
}

function rangeStart(node: unknown): number | undefined {
  return (node as { range?: readonly number[] } | null | undefined)?.range?.[0];
}

function rangeEnd(node: unknown): number | undefined {
  return (node as { range?: readonly number[] } | null | undefined)?.range?.[1];
}

/** The end of the last line that `end` belongs to: a block's range may reach over line ends that follow it. */
function endOfContent(text: string, end: number): number {
  const content = text.slice(0, end).trimEnd().length;
  const lineEnd = text.indexOf("\n", content);
  return lineEnd === -1 ? text.length : lineEnd;
}

function columnOf(text: string, offset: number): number {
  return offset - (text.lastIndexOf("\n", offset - 1) + 1);
}

function endsLine(text: string): string {
  return text === "" || text.endsWith("\n") ? "" : "\n";
}

function indented(text: string, indent: string): string {
  // Not the flag `m`: a line separator within a text begins a line for JavaScript, and none for YAML.
  return text.replaceAll(/(^|\n)(?=[^\n])/g, `$1${indent}`);
}
