import type { Call } from "./call-log.js";

/** One condition of a filter: a word anywhere, or a word in one field. All conditions must hold. */
interface Term {
  readonly field: FieldName | "any";
  readonly word: string;
}

const FIELDS = {
  verdict: (call: Call) => call.decided.verdict,
  caller: (call: Call) => call.decided.caller,
  service: (call: Call) => call.decided.service,
  tool: (call: Call) => call.decided.target,
  action: (call: Call) => call.decided.action,
  rule: (call: Call) => call.decided.rule,
  decision: (call: Call) => call.decided.decision,
} as const;
type FieldName = keyof typeof FIELDS;

/** A test of calls made from what the user typed. An unknown `name:` is looked for as it stands, in the whole call. */
export function compileCallFilter(text: string): (call: Call) => boolean {
  const terms = text.toLowerCase().split(/\s+/).filter(Boolean).map(parseTerm);
  return (call) => terms.every((term) => holds(term, call));
}

function parseTerm(word: string): Term {
  const colon = word.indexOf(":");
  const name = word.slice(0, Math.max(colon, 0));
  return isField(name) ? { field: name, word: word.slice(colon + 1) } : { field: "any", word };
}

function isField(name: string): name is FieldName {
  return Object.hasOwn(FIELDS, name);
}

function holds(term: Term, call: Call): boolean {
  if (term.field === "any") return call.searchText.includes(term.word);
  return FIELDS[term.field](call).toLowerCase().includes(term.word);
}
