import type { ASTNode } from "@marcbachmann/cel-js";
import { CodedError } from "../coded-error.js";
import { MACROS } from "./condition-cost.js";
import { KNOWN_MEMBERS, LINEAR_MATCHES, linearPattern, nameOurs, ZONED } from "./condition-environment.js";
import { nearestHint } from "./policy-names.js";
import { isTimeZone, nearestTimeZone } from "./time-zone.js";

/** `args.amount` in a condition: where it stands and which members it reads. */
export interface Reference {
  /** In one way of writing, whatever the source has: `args.amount`, `args["odd key"]`, `args.items[0]`. */
  readonly text: string;
  /** `["args", "amount"]`. */
  readonly path: readonly string[];
  readonly start: number;
  readonly end: number;
}

export interface ConditionSyntax {
  readonly references: readonly Reference[];
  /** Source ranges of the operands of the outermost `&&`, in order. */
  readonly conjuncts: readonly { readonly start: number; readonly end: number }[];
  /** Whether a variable is used other than by the references: an index that the caller chooses. */
  readonly reachesFurther: boolean;
}

/** A condition is not one that we evaluate. `position` is an offset in its source. */
export class ConditionError extends CodedError<"condition-invalid"> {
  override readonly name = "ConditionError";
  readonly position: number;

  constructor(message: string, position: number, hint?: string) {
    super("condition-invalid", message, hint === undefined ? {} : { hint });
    this.position = position;
  }
}

/** The bound of a condition is reckoned twice for each level. */
const MAX_WALKS = 4;

/**
 * Reads what a parsed condition refers to, and puts our functions in place of the library's. The pattern of `matches` must be a literal, so that it
 * is compiled and its size judged when the file is loaded, never chosen by the caller; a time zone that is a literal must exist.
 * Throws ConditionError.
 */
export function readSyntax(root: ASTNode): ConditionSyntax {
  const references: Reference[] = [];
  let reachesFurther = false;

  const visit = (node: ASTNode, depth: number): void => {
    const reference = referenceOf(node);
    if (reference !== undefined) {
      checkMembers(reference);
      references.push(reference);
      return;
    }
    if (node.op === "[]" || node.op === "[?]") reachesFurther = true;
    if (node.op === "call") nameOurs(node);
    for (const child of childrenOf(node)) visit(child, node.op === "rcall" ? depthBelow(node, depth) : depth);
  };
  visit(root, 0);
  return { references, conjuncts: conjunctsOf(root), reachesFurther };
}

function depthBelow(node: ASTNode & { op: "rcall" }, depth: number): number {
  nameOurs(node);
  const [method, , parameters] = node.args;
  if (method === LINEAR_MATCHES) checkPattern(node, parameters[0]);
  const last = parameters.at(-1);
  if (ZONED.has(method) && last?.op === "value" && !isTimeZone(String(last.args))) {
    const zone = String(last.args);
    throw new ConditionError(
      `no such time zone: ${zone}`,
      last.start,
      nearestTimeZone(zone) ?? "as Europe/Berlin, UTC or +02:00",
    );
  }
  const variable = parameters[0];
  if ((MACROS.has(method) || method === "bind") && variable?.op === "id") {
    if (Object.hasOwn(KNOWN_MEMBERS, variable.args)) {
      throw new ConditionError(`${variable.args} cannot be the variable of ${method}`, variable.start);
    }
  }
  if (!MACROS.has(method)) return depth;
  if (depth === MAX_WALKS) throw new ConditionError(`${method} nested more than ${MAX_WALKS} deep`, node.start);
  return depth + 1;
}

function checkPattern(node: ASTNode, pattern: ASTNode | undefined): void {
  if (pattern?.op !== "value" || typeof pattern.args !== "string") {
    throw new ConditionError("the pattern of matches must be a literal string", pattern?.start ?? node.start);
  }
  try {
    linearPattern(pattern.args);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ConditionError(`matches: ${why} (RE2 syntax)`, pattern.start);
  }
}

function referenceOf(node: ASTNode): Reference | undefined {
  const path: string[] = [];
  let at = node;
  for (;;) {
    if (at.op === "id") {
      if (!Object.hasOwn(KNOWN_MEMBERS, at.args)) return undefined;
      path.push(at.args);
      break;
    }
    const member = memberOf(at);
    if (member === undefined || (at.op !== "." && at.op !== ".?" && at.op !== "[]" && at.op !== "[?]"))
      return undefined;
    path.push(member);
    at = at.args[0];
  }
  path.reverse();
  return { text: pathText(path), path, start: node.start, end: node.end };
}

function memberOf(node: ASTNode): string | undefined {
  if (node.op === "." || node.op === ".?") return String(node.args[1]);
  if (node.op !== "[]" && node.op !== "[?]") return undefined;
  const index = node.args[1];
  if (index.op !== "value") return undefined;
  return typeof index.args === "string" || typeof index.args === "bigint" ? String(index.args) : undefined;
}

/** A path as a condition would write it: `args.customer["first name"]`. */
export function pathText([root = "", ...members]: readonly string[]): string {
  return members.reduce((text, member) => {
    if (/^[a-zA-Z_][a-zA-Z0-9_]*$/.test(member)) return `${text}.${member}`;
    return /^\d+$/.test(member) ? `${text}[${member}]` : `${text}[${JSON.stringify(member)}]`;
  }, root);
}

function checkMembers(reference: Reference): void {
  const [root = "", member] = reference.path;
  const known = KNOWN_MEMBERS[root];
  if (known === undefined || member === undefined || known.includes(member)) return;
  const choice = known.length === 0 ? `${root} has no members` : nearestHint(member, known);
  throw new ConditionError(`no such member: ${reference.text}`, reference.start, choice);
}

/** The parts of a node, in the order of the source. */
export function childrenOf(node: ASTNode): readonly ASTNode[] {
  switch (node.op) {
    case "value":
    case "id":
      return [];
    case ".":
    case ".?":
      return [node.args[0]];
    case "call":
      return node.args[1];
    case "rcall":
      return [node.args[1], ...node.args[2]];
    case "list":
      return node.args;
    case "map":
      return node.args.flat();
    case "!_":
    case "-_":
      return [node.args];
    default:
      return node.args;
  }
}

function conjunctsOf(node: ASTNode): ConditionSyntax["conjuncts"] {
  if (node.op === "&&") return node.args.flatMap(conjunctsOf);
  return [withItsParentheses(node.input, node.start, node.end)];
}

const STRINGS = /"""[\s\S]*?"""|'''[\s\S]*?'''|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'/g;

/** The parser's range of `(a) || (b)` is `a) || (b`: the parentheses that are missing on either side belong to it. */
function withItsParentheses(input: string, from: number, to: number): { readonly start: number; readonly end: number } {
  let start = from;
  let end = to;
  const text = input.slice(start, end).replaceAll(STRINGS, (string) => " ".repeat(string.length));
  let open = 0;
  let missing = 0;
  for (const character of text) {
    if (character === "(") open += 1;
    if (character !== ")") continue;
    if (open > 0) open -= 1;
    else missing += 1;
  }
  for (; missing > 0; missing -= 1) start = input.lastIndexOf("(", start - 1);
  for (; open > 0; open -= 1) end = input.indexOf(")", end) + 1;
  return { start, end };
}
