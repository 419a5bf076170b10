import type { ASTNode } from "@marcbachmann/cel-js";
import { RE2JS } from "re2js";
import { CodedError } from "../coded-error.js";

/** `args.amount` in a condition: where it stands and which members it reads. */
interface Reference {
  /** As written: `args.amount`. */
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
  /** True where a macro (`all`, `exists`, `map` …) walks over a list, so that cost follows the size of the arguments. */
  readonly walks: boolean;
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

/** Members of the variables whose shape is known; `args` is whatever the caller sent. */
export const KNOWN_MEMBERS: Readonly<Record<string, readonly string[] | undefined>> = {
  args: undefined,
  caller: ["id", "name", "trustDomain", "evidence", "launchedBy", "labels"],
  subject: ["type", "id", "properties"],
  user: ["id", "properties"],
  actors: [],
  action: ["name", "properties"],
  resource: ["type", "id", "name", "tool", "uri", "prompt", "labels", "properties"],
  request: ["method", "path", "query"],
  context: undefined,
  now: [],
};

export const LINEAR_MATCHES = "matchesLinear";
const MACROS = new Set(["all", "exists", "exists_one", "map", "filter"]);
const MAX_WALKS = 2;

/**
 * Reads what a parsed condition refers to, and makes its `matches` calls linear-time by naming our RE2 function in place of the built-in one
 * (the built-in uses JavaScript's backtracking expressions: a 31-character input took 31 s). The pattern must be a literal, so that it is
 * compiled and its size judged when the file is loaded, never chosen by the caller.
 * Throws ConditionError.
 */
export function readSyntax(root: ASTNode): ConditionSyntax {
  const references: Reference[] = [];
  let walks = false;

  const visit = (node: ASTNode, depth: number): void => {
    const reference = referenceOf(node);
    if (reference !== undefined) {
      checkMembers(reference);
      references.push(reference);
      return;
    }
    let childDepth = depth;
    if (node.op === "rcall") {
      const [method, , parameters] = node.args;
      if (method === "matches") nameLinearMatches(node, parameters);
      const variable = parameters[0];
      if (MACROS.has(method) || method === "bind") {
        if (variable?.op === "id" && Object.hasOwn(KNOWN_MEMBERS, variable.args)) {
          throw new ConditionError(`${variable.args} cannot be the variable of ${method}`, variable.start);
        }
      }
      if (MACROS.has(method)) {
        walks = true;
        childDepth += 1;
        if (childDepth > MAX_WALKS) {
          throw new ConditionError(`${method} nested more than ${MAX_WALKS} deep`, node.start);
        }
      }
    }
    for (const child of childrenOf(node)) visit(child, childDepth);
  };
  visit(root, 0);
  return { references, walks, conjuncts: conjunctsOf(root) };
}

function nameLinearMatches(node: ASTNode & { op: "rcall" }, parameters: readonly ASTNode[]): void {
  const pattern = parameters[0];
  if (pattern?.op !== "value" || typeof pattern.args !== "string") {
    throw new ConditionError("the pattern of matches must be a literal string", pattern?.start ?? node.start);
  }
  try {
    linearPattern(pattern.args);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ConditionError(`matches: ${why} (RE2 syntax)`, pattern.start);
  }
  // The parser's tuple is ours to change until the expression is checked for the first time.
  (node.args as unknown as [string, ...unknown[]])[0] = LINEAR_MATCHES;
}

const compiledPatterns = new Map<string, RE2JS>();

/** The compiled RE2 pattern; compiled when a condition is loaded, looked up when it is evaluated. Throws what RE2 says. */
export function linearPattern(pattern: string): RE2JS {
  let compiled = compiledPatterns.get(pattern);
  if (compiled === undefined) {
    compiled = RE2JS.compile(pattern);
    compiledPatterns.set(pattern, compiled);
  }
  return compiled;
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
    if (at.op === ".") path.push(String(at.args[1]));
    else if (at.op === "[]" && at.args[1].op === "value" && typeof at.args[1].args === "string")
      path.push(at.args[1].args);
    else return undefined;
    at = at.args[0];
  }
  return { text: node.input.slice(node.start, node.end), path: path.reverse(), start: node.start, end: node.end };
}

function checkMembers(reference: Reference): void {
  const [root = "", member] = reference.path;
  const known = KNOWN_MEMBERS[root];
  if (known === undefined || member === undefined || known.includes(member)) return;
  const choice = known.length === 0 ? `${root} has no members` : `${root} has ${known.join(", ")}`;
  throw new ConditionError(`no such member: ${reference.text}`, reference.start, choice);
}

function childrenOf(node: ASTNode): readonly ASTNode[] {
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
