import type { ASTNode } from "@marcbachmann/cel-js";
import { KNOWN_MEMBERS, LINEAR_MATCHES, linearPattern, ZONED } from "./condition-environment.js";

/** How large a value is, or at most can be. */
export interface Extent {
  /** Values in it, itself and all nested ones, keys counted too. */
  readonly values: number;
  /** Characters (bytes) of the longest string (bytes) in it. */
  readonly longest: number;
}

/** What an expression can give, as far as its cost to others goes. */
interface Shape extends Extent {
  /** Entries of the outermost list or map. */
  readonly length: number;
  /** Known from the source alone, and without a map in it: comparing it lists no keys of the other side. */
  readonly fixed: boolean;
}

interface Cost {
  readonly steps: number;
  readonly shape: Shape;
}

/*
 * The weights: one step is about a nanosecond, rounded up to what the slowest case of its kind was seen to take (test/bench/conditions.ts measures
 * what a step takes). What is counted: nodes evaluated, characters and elements touched, errors made.
 */
export const STEPS = {
  node: 100,
  /** An error is made, caught and thrown away: by an operand of `&&` and `||`, a step of `all` and `exists`, an optional selection. */
  error: 4_000,
  /** An element of a list or an entry of a map is looked at, copied or compared. */
  element: 50,
  /** A key of a map with very many keys is listed. */
  key: 400,
  character: 1,
  /** A place in a text is compared with one character of what is looked for. */
  searched: 4,
  /** A character is decoded. */
  decoded: 40,
  /** A letter changes its case. */
  converted: 80,
  /** An instruction of an RE2 pattern on one character. */
  instruction: 200,
  /** Text becomes a timestamp, a duration or a number. */
  conversion: 5_000,
  /** A date in a time zone whose data are at hand. */
  zone: 40_000,
  /** The data of a time zone are fetched. */
  newZone: 600_000,
} as const;

const SCALAR: Shape = { values: 1, longest: 0, length: 0, fixed: false };
/** A number or a time as text: a double that became an int has 309 digits. */
const MAX_SCALAR_TEXT = 400;

/**
 * An upper bound on the steps that one evaluation takes when the largest of its inputs is `input`: both branches of every choice are counted, every
 * macro runs to its end over the largest list there can be, and whatever can fail fails. Infinite for a function that has no bound here.
 */
export function boundOn(root: ASTNode, input: Extent): number {
  const shape: Shape = { ...input, length: input.values, fixed: false };
  // What fails at last is an error too.
  return new Bound(shape).of(root, new Map()).steps + STEPS.error;
}

type Variables = ReadonlyMap<string, Shape>;

class Bound {
  readonly #input: Shape;

  constructor(input: Shape) {
    this.#input = input;
  }

  of(node: ASTNode, variables: Variables): Cost {
    switch (node.op) {
      case "value":
        return { steps: STEPS.node, shape: literal(node.args) };
      case "id":
        return { steps: STEPS.node, shape: variables.get(node.args) ?? this.#variable(node.args) };
      case ".":
        return plus(this.of(node.args[0], variables), STEPS.node, partOf);
      case ".?":
        return plus(this.of(node.args[0], variables), STEPS.node + STEPS.error, partOf);
      case "[]":
      case "[?]": {
        const [container, index] = [this.of(node.args[0], variables), this.of(node.args[1], variables)];
        const steps = STEPS.node + (node.op === "[?]" ? STEPS.error : 0) + index.shape.longest * STEPS.character;
        return { steps: container.steps + index.steps + steps, shape: partOf(container.shape) };
      }
      case "call":
        return this.#call(node.args[0], node.args[1], variables);
      case "rcall":
        return this.#method(node.args[0], node.args[1], node.args[2], variables);
      case "list":
        return aggregate(
          node.args.map((each) => this.of(each, variables)),
          node.args.length,
        );
      case "map":
        return plus(
          aggregate(
            node.args.flat().map((each) => this.of(each, variables)),
            node.args.length,
          ),
          node.args.length * STEPS.key,
          (shape) => ({ ...shape, fixed: false }),
        );
      case "!_":
      case "-_":
        return plus(this.of(node.args, variables), STEPS.node, () => SCALAR);
      case "?:": {
        const [condition, yes, no] = node.args.map((each) => this.of(each, variables)) as [Cost, Cost, Cost];
        return {
          steps: condition.steps + yes.steps + no.steps + STEPS.node,
          shape: either(yes.shape, no.shape),
        };
      }
      default:
        return this.#binary(node.op, this.of(node.args[0], variables), this.of(node.args[1], variables));
    }
  }

  #variable(name: string): Shape {
    return Object.hasOwn(KNOWN_MEMBERS, name) && name !== "now" ? this.#input : SCALAR;
  }

  #binary(operator: string, left: Cost, right: Cost): Cost {
    const steps = left.steps + right.steps + STEPS.node;
    const [a, b] = [left.shape, right.shape];
    switch (operator) {
      case "&&":
      case "||":
        return { steps: steps + 2 * STEPS.error, shape: SCALAR };
      case "==":
      case "!=":
        return { steps: steps + comparison(smaller(a, b)), shape: SCALAR };
      case "in": {
        // The element is compared with every element, each time to where they differ.
        const characters = a.fixed || b.fixed ? smaller(a, b).longest : Math.max(a.longest, b.longest);
        return { steps: steps + comparison({ ...b, longest: characters }) + a.longest, shape: SCALAR };
      }
      case "+": {
        const shape: Shape = {
          values: a.values + b.values,
          length: a.length + b.length,
          longest: a.longest + b.longest,
          fixed: a.fixed && b.fixed,
        };
        return { steps: steps + shape.length * STEPS.element + shape.longest * STEPS.character, shape };
      }
      case "<":
      case "<=":
      case ">":
      case ">=":
        return { steps: steps + smaller(a, b).longest * STEPS.character, shape: SCALAR };
      default:
        return { steps, shape: SCALAR };
    }
  }

  #call(name: string, parameters: readonly ASTNode[], variables: Variables): Cost {
    const given = parameters.map((parameter) => this.of(parameter, variables));
    const before = given.reduce<number>((sum, { steps }) => sum + steps, STEPS.node);
    const shape = given[0]?.shape ?? SCALAR;
    const { steps, gives } = functionCost(name, shape);
    return { steps: before + steps, shape: gives };
  }

  #method(name: string, receiver: ASTNode, parameters: readonly ASTNode[], variables: Variables): Cost {
    if (MACROS.has(name)) return this.#macro(name, this.of(receiver, variables), parameters, variables);
    if (name === "bind") {
      const [variable, value, body] = parameters;
      if (variable?.op !== "id" || value === undefined || body === undefined) return UNBOUNDED;
      const bound = this.of(value, variables);
      const rest = this.of(body, new Map(variables).set(variable.args, bound.shape));
      return { steps: bound.steps + rest.steps + STEPS.node, shape: rest.shape };
    }
    const given = [receiver, ...parameters].map((each) => this.of(each, variables));
    const before = given.reduce<number>((sum, { steps }) => sum + steps, STEPS.node);
    const [own = SCALAR, other = SCALAR] = given.map(({ shape }) => shape);
    const { steps, gives } = methodCost(name, own, other, parameters);
    return { steps: before + steps, shape: gives };
  }

  /**
   * The elements of a list share its size: N of them, with V values together, cost at most what N small ones and one with all V values cost. That
   * holds because a bound grows at least in proportion to the values that it is for (it is convex in them).
   */
  #macro(name: string, list: Cost, parameters: readonly ASTNode[], variables: Variables): Cost {
    const [variable, ...bodies] = parameters;
    if (variable?.op !== "id") return UNBOUNDED;
    const { length, longest } = list.shape;
    const small: Shape = { values: 1, length: 0, longest, fixed: false };
    const whole: Shape = { ...partOf(list.shape), fixed: false };
    let steps = list.steps + STEPS.node + length * (2 * STEPS.node + STEPS.element + STEPS.key);
    if (name === "all" || name === "exists") steps += length * STEPS.error;
    let given: Shape = SCALAR;
    for (const body of bodies) {
      const ofSmall = this.of(body, new Map(variables).set(variable.args, small));
      const ofWhole = this.of(body, new Map(variables).set(variable.args, whole));
      steps += length * ofSmall.steps + ofWhole.steps;
      given = {
        values: 1 + length * ofSmall.shape.values + ofWhole.shape.values,
        longest: Math.max(ofSmall.shape.longest, ofWhole.shape.longest),
        length,
        fixed: false,
      };
    }
    if (name === "map") return { steps, shape: given };
    return { steps, shape: name === "filter" ? { ...list.shape, fixed: false } : SCALAR };
  }
}

export const MACROS: ReadonlySet<string> = new Set(["all", "exists", "exists_one", "map", "filter"]);
const UNBOUNDED: Cost = { steps: Number.POSITIVE_INFINITY, shape: SCALAR };

interface FunctionCost {
  readonly steps: number;
  readonly gives: Shape;
}

function functionCost(name: string, { values, length, longest }: Shape): FunctionCost {
  switch (name) {
    case "has":
    case "type":
      return { steps: 0, gives: SCALAR };
    case "dyn":
      return { steps: 0, gives: { values, length, longest, fixed: false } };
    case "size":
      return { steps: longest * STEPS.decoded + length * STEPS.key, gives: SCALAR };
    case "string":
      return {
        steps: longest * STEPS.decoded + STEPS.conversion,
        gives: { ...SCALAR, longest: longest + MAX_SCALAR_TEXT },
      };
    case "bytes":
      return { steps: longest * STEPS.decoded, gives: { ...SCALAR, length: 3 * longest, longest: 3 * longest } };
    case "bool":
    case "int":
    case "uint":
    case "double":
    case "durationOfText":
    case "timestampOf":
      return { steps: longest * STEPS.decoded + STEPS.conversion, gives: SCALAR };
    default:
      return { steps: Number.POSITIVE_INFINITY, gives: SCALAR };
  }
}

function methodCost(name: string, own: Shape, other: Shape, parameters: readonly ASTNode[]): FunctionCost {
  const { values, length, longest } = own;
  const text = (characters: number): Shape => ({ ...SCALAR, longest: characters });
  // V8 looks for long needles by rules that have bad cases.
  const search = longest * Math.max(1, other.longest) * STEPS.searched;
  const zone = parameters.at(-1);
  if (ZONED.has(name)) return { steps: zone?.op === "value" ? STEPS.zone : STEPS.newZone, gives: SCALAR };
  if (/^get[A-Z]/.test(name)) return { steps: STEPS.conversion, gives: SCALAR };
  switch (name) {
    case LINEAR_MATCHES: {
      const instructions =
        zone?.op === "value" ? linearPattern(String(zone.args)).programSize() : Number.POSITIVE_INFINITY;
      return { steps: STEPS.conversion + longest * instructions * STEPS.instruction, gives: SCALAR };
    }
    case "startsWith":
    case "endsWith":
      return { steps: other.longest * STEPS.character, gives: SCALAR };
    case "contains":
    case "indexOf":
      return { steps: search, gives: SCALAR };
    case "lastIndexLinear":
      return { steps: search + (longest + other.longest) * STEPS.converted, gives: SCALAR };
    case "split":
      return {
        steps: search + (longest + 1) * STEPS.element,
        gives: { values: longest + 2, length: longest + 1, longest, fixed: false },
      };
    case "join": {
      const characters = length * (longest + other.longest);
      return { steps: characters * STEPS.character + length * STEPS.element, gives: text(characters) };
    }
    case "lowerAsciiOnly":
    case "upperAsciiOnly":
      return { steps: longest * STEPS.converted, gives: text(longest) };
    case "substring":
    case "trim":
      return { steps: longest * STEPS.decoded, gives: text(longest) };
    case "size":
      return { steps: longest * STEPS.decoded + length * STEPS.key, gives: SCALAR };
    case "json":
      return { steps: longest * STEPS.element, gives: { values: longest, length: longest, longest, fixed: false } };
    case "hex":
    case "base64":
    case "string":
      return { steps: longest * STEPS.decoded, gives: text(2 * longest + 4) };
    case "at":
    case "hasValue":
    case "none":
      return { steps: 0, gives: SCALAR };
    case "of":
      return { steps: 0, gives: other };
    case "value":
      return { steps: 0, gives: { values, length, longest, fixed: false } };
    case "or":
    case "orValue":
      return { steps: 0, gives: either(own, other) };
    default:
      return { steps: Number.POSITIVE_INFINITY, gives: SCALAR };
  }
}

/** Everything of the smaller of two values is compared with what stands at its place in the other. */
function comparison({ values, longest }: Extent): number {
  return values * (STEPS.element + STEPS.key + longest * STEPS.character);
}

/** What two values have in common is no larger than the one that the source fixes. */
function smaller(a: Shape, b: Shape): Extent {
  if (a.fixed && b.fixed) return a.values * a.longest <= b.values * b.longest ? a : b;
  if (a.fixed) return a;
  if (b.fixed) return b;
  return { values: Math.max(a.values, b.values), longest: Math.max(a.longest, b.longest) };
}

function either(a: Shape, b: Shape): Shape {
  return {
    values: Math.max(a.values, b.values),
    length: Math.max(a.length, b.length),
    longest: Math.max(a.longest, b.longest),
    fixed: a.fixed && b.fixed,
  };
}

function partOf({ values, longest }: Shape): Shape {
  return { values, longest, length: values, fixed: false };
}

function plus(cost: Cost, steps: number, gives: (shape: Shape) => Shape): Cost {
  return { steps: cost.steps + steps, shape: gives(cost.shape) };
}

function aggregate(parts: readonly Cost[], length: number): Cost {
  return {
    steps: parts.reduce<number>((sum, { steps }) => sum + steps, STEPS.node + length * STEPS.element),
    shape: {
      values: parts.reduce((sum, { shape }) => sum + shape.values, 1),
      longest: Math.max(0, ...parts.map(({ shape }) => shape.longest)),
      length,
      fixed: parts.every(({ shape }) => shape.fixed),
    },
  };
}

function literal(value: unknown): Shape {
  if (typeof value === "string") return { ...SCALAR, longest: value.length, fixed: true };
  if (value instanceof Uint8Array) return { ...SCALAR, length: value.length, longest: value.length, fixed: true };
  return { ...SCALAR, fixed: true };
}
