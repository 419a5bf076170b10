import type { ASTNode, ParseResult } from "@marcbachmann/cel-js";
import { STEPS } from "../../src/policy/condition-cost.js";

/*
 * Counts what an evaluation does: every node that the library's own evaluator enters, and the characters and elements that its operands have. It
 * knows nothing of the bound: it looks at the values that are really there.
 */

interface Evaluated {
  op: string;
  args: unknown;
  evaluate(this: Evaluated, evaluator: unknown, ast: Evaluated, context: unknown): unknown;
}

interface Frame {
  readonly given: unknown[];
}

export interface Steps {
  count: number;
}

/** Makes `run`, which has been checked, count. */
export function counting(run: ParseResult): Steps {
  const steps: Steps = { count: 0 };
  const frames: Frame[] = [];
  const failures = new WeakSet<object>();
  for (const node of nodesOf(run.ast)) {
    const evaluate = node.evaluate;
    node.evaluate = (evaluator, ast, context) => {
      steps.count += STEPS.node;
      const frame: Frame = { given: [] };
      frames.push(frame);
      try {
        const result = evaluate.call(node, evaluator, ast, context);
        frames.pop();
        steps.count += workOf(ast, frame.given, result);
        frames.at(-1)?.given.push(result);
        return result;
      } catch (error) {
        frames.pop();
        if (typeof error === "object" && error !== null && !failures.has(error)) {
          failures.add(error);
          steps.count += STEPS.error + workOf(ast, frame.given, undefined);
        }
        throw error;
      }
    };
  }
  return steps;
}

/** Every node that is reachable, those that macros were expanded to included. */
function nodesOf(root: ASTNode): Evaluated[] {
  const kind = root.constructor;
  const seen = new Set<object>();
  const found: Evaluated[] = [];
  const pending: unknown[] = [root];
  while (pending.length > 0) {
    const value = pending.pop();
    if (typeof value !== "object" || value === null || seen.has(value)) continue;
    seen.add(value);
    if (value.constructor === kind) {
      found.push(value as Evaluated);
      pending.push((value as { meta?: unknown }).meta);
    }
    if (value.constructor === kind || Array.isArray(value) || value.constructor === Object)
      pending.push(...Object.values(value));
  }
  return found;
}

/** Children are evaluated last first by some nodes: for what is reckoned here the order does not matter. */
function workOf(ast: Evaluated, given: readonly unknown[], result: unknown): number {
  const [a, b] = given;
  const texts = given.filter((value) => typeof value === "string").map((text) => text.length);
  const longest = Math.max(0, ...texts);
  switch (ast.op) {
    case "==":
    case "!=":
      return compared(a, b);
    case "in": {
      const [element, list] = Array.isArray(a) ? [b, a] : [a, b];
      return Array.isArray(list) ? list.reduce<number>((sum, each) => sum + compared(element, each), 0) : STEPS.element;
    }
    case "+":
      if (typeof result === "string") return result.length * STEPS.character;
      return Array.isArray(result) ? result.length * STEPS.element : 0;
    case "<":
    case "<=":
    case ">":
    case ">=":
      return Math.min(longest, ...texts) * STEPS.character;
    case "list":
      return given.length * STEPS.element;
    case "map":
      return given.length * STEPS.element;
    case "call":
    case "rcall":
      return callWork(String((ast.args as readonly unknown[])[0]), given, longest, result);
    default:
      return 0;
  }
}

function callWork(name: string, given: readonly unknown[], longest: number, result: unknown): number {
  switch (name) {
    case "size":
      return longest * STEPS.decoded + Math.max(0, ...given.map(entriesOf)) * STEPS.element;
    case "contains":
    case "startsWith":
    case "endsWith":
    case "indexOf":
    case "lastIndexOf":
      return longest * STEPS.character;
    case "split":
      return longest * STEPS.character + entriesOf(result) * STEPS.element;
    case "join":
      return typeof result === "string" ? result.length * STEPS.character : 0;
    case "matchesLinear":
      return longest * STEPS.instruction;
    case "upperAsciiOnly":
      return longest * STEPS.converted;
    default:
      return longest * STEPS.character;
  }
}

function compared(a: unknown, b: unknown): number {
  if (typeof a === "string" && typeof b === "string") return Math.min(a.length, b.length) * STEPS.character;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return STEPS.element;
  if (Array.isArray(a) && Array.isArray(b)) {
    if (a.length !== b.length) return STEPS.element;
    return (a as readonly unknown[]).reduce<number>(
      (sum, each, index) => sum + compared(each, b[index]),
      STEPS.element,
    );
  }
  const inA = a as Record<string, unknown>;
  const inB = b as Record<string, unknown>;
  return Object.keys(inA).reduce<number>((sum, key) => sum + compared(inA[key], inB[key]), STEPS.element);
}

function entriesOf(value: unknown): number {
  return typeof value === "object" && value !== null ? Object.keys(value).length : 0;
}
