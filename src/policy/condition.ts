import type { ASTNode, EvaluationError, ParseResult } from "@marcbachmann/cel-js";
import { nextTurn } from "../platform/turns.js";
import type { Properties } from "./access-request.js";
import { boundOn, type Extent } from "./condition-cost.js";
import { conditionEnvironment, inTheirNames } from "./condition-environment.js";
import { extentOf } from "./condition-extent.js";
import { misnamed } from "./condition-names.js";
import { ConditionError, type ConditionSyntax, type Reference, readSyntax } from "./condition-syntax.js";
import { conditionThread } from "./condition-thread.js";
import { turnsOf } from "./condition-turns.js";
import { displayValue, recordedValue } from "./condition-values.js";

/** What a condition can see. */
export interface ConditionInput {
  readonly args: Properties;
  readonly caller: {
    readonly id: string;
    readonly name: string;
    readonly trustDomain: string;
    /** `kernel`, `launch`, `parent`, `weak`, `certificate`; empty where nobody said. */
    readonly evidence: string;
    /** SPIFFE IDs, nearest first. */
    readonly launchedBy: readonly string[];
    readonly labels: Properties;
  };
  readonly subject: { readonly type: string; readonly id: string; readonly properties: Properties };
  /** On whose behalf: `id`, `properties`; empty where nobody said. */
  readonly user: Properties;
  /** Through whose hands, outermost first. */
  readonly actors: readonly string[];
  readonly action: { readonly name: string; readonly properties: Properties };
  readonly resource: {
    readonly type: string;
    readonly id: string;
    readonly name: string;
    readonly tool: string;
    readonly uri: string;
    readonly prompt: string;
    readonly labels: Properties;
    readonly properties: Properties;
  };
  readonly request: { readonly method: string; readonly path: string; readonly query: Properties };
  /** What else the enforcement point says of the moment. */
  readonly context: Properties;
  readonly now: Date;
}

export type ConditionOutcome =
  | { readonly outcome: "true" }
  /** `part`: which operand of the outermost `&&` it was, where that is known already. */
  | { readonly outcome: "false"; readonly part?: number }
  /** A missing member, a wrong type, an answer that is not a boolean: never a match for an allow, always one for a deny. */
  | {
      readonly outcome: "error";
      readonly why: string;
      readonly part?: number;
      /** `why` may hold a value that the condition read. */
      readonly showsValue?: boolean;
    };

/** A CEL expression over `args`, `caller`, `resource`, `request` and `now`, parsed, checked and bounded once. */
export interface Condition {
  readonly source: string;
  /** Paths whose values nobody is shown: `args.card`. */
  readonly sensitive: readonly string[];
  /** The operands of its outermost `&&`, as written. */
  readonly terms: readonly string[];
  /** What it reads: `["args", "amount"]`. */
  readonly references: readonly (readonly string[])[];
  /** Never throws or rejects. A promise where the input is so large that the event loop should not wait for it. */
  evaluate(input: ConditionInput): ConditionOutcome | Promise<ConditionOutcome>;
  /** In words, with the values: `args.amount <= 1000: 4200 <= 1000 is false`. */
  describe(input: ConditionInput, outcome: ConditionOutcome): string;
  /** The values that the condition read: `{"args.amount": 4200}`. Absent and sensitive members are left out, long ones shortened. */
  valuesUsed(input: ConditionInput): Properties;
  /** The same of arguments that may be large, without keeping the event loop. */
  valuesUsedInTurns(input: ConditionInput): Promise<Properties>;
  /** Those of its variables that it reads: `args`, `user`. */
  readonly variables: ReadonlySet<string>;
  /** An upper bound on the steps (about nanoseconds) that it takes for an input of this extent. */
  bound(input: Extent): number;
  /** What it reads of the arguments: `["amount"]`, `["customer", "address"]`. */
  readonly argumentsRead: readonly { readonly path: readonly string[]; readonly position: number }[];
  /** The labels of caller and service that it reads: `team`. */
  readonly labelsRead: readonly {
    readonly label: string;
    readonly of: "caller" | "resource";
    readonly position: number;
  }[];
}

export interface ConditionOptions {
  /** Paths whose values are neither shown nor recorded: `args.card`. */
  readonly sensitive?: readonly string[];
}

const MAX_SOURCE_LENGTH = 4096;
/** What the event loop may be kept for at once. */
export const STEPS_AT_ONCE = 3_000_000;
/** A condition that takes no more than this for any input needs no look at the input's size. */
const STEPS_UNSEEN = 1_000_000;
const LARGEST: Extent = { values: 2 ** 22, longest: 2 ** 22 };
/** Arguments that every condition must cope with: what may take longer than this for so few of them is refused when it is loaded. */
const SMALLEST: Extent = { values: 16, longest: 64 };
const STEPS_FOR_SMALLEST = 10 * STEPS_AT_ONCE;
/** What is written out for the record goes on in another turn after so long. */
const TURN_MS = 1;
const TRUE: ConditionOutcome = { outcome: "true" };
const FALSE: ConditionOutcome = { outcome: "false" };

const environment = conditionEnvironment();

/** Compiles a condition. Throws ConditionError with the position in `source`. */
export function compileCondition(source: string, { sensitive = [] }: ConditionOptions = {}): Condition {
  if (source.length > MAX_SOURCE_LENGTH) {
    throw new ConditionError(`condition is longer than ${MAX_SOURCE_LENGTH} characters`, 0);
  }
  const parsed = parse(source);
  const syntax = readSyntax(parsed.ast);
  const checked = parsed.check();
  if (!checked.valid) {
    const message = inTheirNames(checked.error?.summary ?? "condition is not valid");
    const position = checked.error?.range?.start ?? 0;
    const name = misnamed(parsed.ast, message, position);
    if (name !== undefined) throw new ConditionError(name.message, name.position, name.hint);
    throw new ConditionError(message, position);
  }
  if (checked.type !== "bool" && checked.type !== "dyn") {
    throw new ConditionError(`condition must be true or false, not ${checked.type}`, 0);
  }
  const bound = boundsOf(parsed.ast);
  refuseCostly(parsed.ast, bound);
  const mostSteps = bound(LARGEST);
  const needsExtent = mostSteps > STEPS_UNSEEN;
  const isSensitive = ({ path }: Reference): boolean =>
    sensitive.some((hidden) => pathsOverlap(hidden, path.join(".")));
  const variables: ReadonlySet<string> = new Set(syntax.references.map(({ path: [root = ""] }) => root));
  const hidesValues = syntax.references.some(isSensitive);
  const shownReferences = syntax.references.filter((reference) => !isSensitive(reference));

  const shown = (outcome: ConditionOutcome): ConditionOutcome =>
    hidesValues && outcome.outcome === "error" && outcome.showsValue === true
      ? { ...outcome, why: "it failed on a sensitive value" }
      : outcome;

  const stepsFor = (input: ConditionInput): number => {
    if (!needsExtent && readsScalarsOnly(syntax, input)) return mostSteps;
    const { extents, keysOf } = turnsOf(input, STEPS_AT_ONCE);
    const extent = extentOf(input, variables, extents, keysOf);
    return extent === "large" ? Number.POSITIVE_INFINITY : bound(extent);
  };

  // Only a denial and `explain` need the parts, so they are compiled when first asked for.
  let parts: readonly ConditionPart[] | undefined;
  const partsOfIt = (): readonly ConditionPart[] => {
    parts ??= syntax.conjuncts.map(({ start, end }) => {
      const part = source.slice(start, end);
      const run = parse(part);
      readSyntax(run.ast);
      return { source: part, text: oneLine(part), start, end, run };
    });
    return parts;
  };
  const failingPart = (input: ConditionInput, outcome: ConditionOutcome): ConditionPart | undefined => {
    const all = partsOfIt();
    if (all.length === 1) return all[0];
    if (outcome.outcome !== "true" && outcome.part !== undefined) return all[outcome.part];
    // The thread gave up on it, or never had it: nobody looks for the part on the event loop instead.
    if (stepsFor(input) > STEPS_AT_ONCE) return undefined;
    return all.find((part) => outcomeOf(part.run, input).outcome === outcome.outcome);
  };

  return {
    source,
    sensitive,
    terms: syntax.conjuncts.map(({ start, end }) => source.slice(start, end)),
    references: syntax.references.map(({ path }) => path),
    variables,
    bound,
    argumentsRead: syntax.references.flatMap(({ path: [root, ...path], start }) =>
      root === "args" && path.length > 0 ? [{ path, position: start }] : [],
    ),
    labelsRead: syntax.references.flatMap(({ path: [of, member, label], start }) =>
      (of === "caller" || of === "resource") && member === "labels" && label !== undefined
        ? [{ label, of, position: start }]
        : [],
    ),
    evaluate(input) {
      const steps = stepsFor(input);
      const turns = turnsOf(input, STEPS_AT_ONCE);
      if (steps > STEPS_AT_ONCE) return conditionThread().evaluate(source, input, turns.keysOf).then(shown);
      return turns.run(steps, () => shown(outcomeOf(parsed, input)));
    },
    describe(input, outcome) {
      if (outcome.outcome === "true") {
        return `${oneLine(source)}: ${withValues(source, 0, source.length, input)} is true`;
      }
      const part = failingPart(input, outcome) ?? { source, text: oneLine(source), start: 0, end: source.length };
      if (outcome.outcome === "error") return `${part.text}: ${outcome.why}`;
      const valued = withValues(part.source, part.start, part.end, input);
      return valued === part.text ? `${part.text} is false` : `${part.text}: ${valued} is false`;
    },
    valuesUsed(input) {
      const values: Record<string, unknown> = {};
      for (const reference of shownReferences) note(reference, input, values);
      return values;
    },
    async valuesUsedInTurns(input) {
      const values: Record<string, unknown> = {};
      let begun = performance.now();
      for (const reference of shownReferences) {
        note(reference, input, values);
        if (performance.now() - begun < TURN_MS) continue;
        await nextTurn();
        begun = performance.now();
      }
      return values;
    },
  };

  function note(reference: Reference, input: ConditionInput, values: Record<string, unknown>): void {
    const value = valueAt(input, reference.path);
    if (value !== undefined) values[reference.text] = recordedIn(input, value);
  }

  function withValues(part: string, start: number, end: number, input: ConditionInput): string {
    let text = "";
    let at = start;
    for (const reference of syntax.references) {
      if (reference.start < at || reference.end > end) continue;
      const value = valueAt(input, reference.path);
      if (value === undefined) continue;
      text += part.slice(at - start, reference.start - start);
      text += isSensitive(reference) ? "(sensitive)" : displayValue(value, turnsOf(input, STEPS_AT_ONCE).keysOf);
      at = reference.end;
    }
    return oneLine(text + part.slice(at - start));
  }
}

/** Evaluates where nobody waits, however long it takes, and says which part of it failed. Throws ConditionError. */
export function evaluateApart(source: string): (input: ConditionInput) => ConditionOutcome {
  const whole = parse(source);
  const { conjuncts } = readSyntax(whole.ast);
  const parts = conjuncts.map(({ start, end }) => {
    const part = parse(source.slice(start, end));
    readSyntax(part.ast);
    return part;
  });
  return (input) => {
    const outcome = outcomeOf(whole, input);
    if (outcome.outcome === "true") return outcome;
    const part = parts.findIndex((each) => outcomeOf(each, input).outcome === outcome.outcome);
    return part === -1 ? outcome : { ...outcome, part };
  };
}

interface ConditionPart {
  readonly source: string;
  /** The source on one line. */
  readonly text: string;
  readonly start: number;
  readonly end: number;
  readonly run: ParseResult;
}

function parse(source: string): ParseResult {
  try {
    return environment.parse(source);
  } catch (thrown) {
    const error = thrown as Partial<EvaluationError>;
    throw new ConditionError(error.summary ?? String(thrown), error.range?.start ?? 0);
  }
}

/** The bound, reckoned once for each power of two. */
function boundsOf(root: ASTNode): (extent: Extent) => number {
  const known = new Map<number, number>();
  return ({ values, longest }) => {
    const [v, l] = [Math.ceil(Math.log2(Math.max(1, values))), Math.ceil(Math.log2(Math.max(1, longest)))];
    const key = v * 64 + l;
    let steps = known.get(key);
    if (steps === undefined) {
      steps = boundOn(root, { values: 2 ** v, longest: 2 ** l });
      known.set(key, steps);
    }
    return steps;
  };
}

function refuseCostly(root: ASTNode, bound: (extent: Extent) => number): void {
  const steps = bound(SMALLEST);
  if (steps <= STEPS_FOR_SMALLEST) return;
  const costly = costliestIn(root);
  const most = Number.isFinite(steps) ? `${Math.ceil(steps / STEPS_FOR_SMALLEST)} times` : "without a bound,";
  throw new ConditionError(
    `too costly: ${oneLine(costly.input.slice(costly.start, costly.end)).slice(0, 60)}`,
    costly.start,
    `even for arguments of ${SMALLEST.values} values it could take ${most} what a condition may take`,
  );
}

/** The operand of the outermost `&&` and `||` that costs most, and of macros one within another the outermost. */
function costliestIn(node: ASTNode): ASTNode {
  if (node.op !== "&&" && node.op !== "||") return node;
  const [left, right] = node.args;
  return costliestIn(boundOn(left, SMALLEST) >= boundOn(right, SMALLEST) ? left : right);
}

function outcomeOf(run: ParseResult, input: ConditionInput): ConditionOutcome {
  // Errors are common here, and thrown away: nobody reads where in the library they were made.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    const value: unknown = run({ ...input });
    if (value === true) return TRUE;
    if (value === false) return FALSE;
    return { outcome: "error", why: "the condition gave no boolean" };
  } catch (thrown) {
    return failureOf(thrown);
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

const MAX_WHY = 200;

function failureOf(thrown: unknown): ConditionOutcome {
  const error = thrown as Partial<EvaluationError>;
  const { node } = error;
  if (error.code === "no_such_key" && node?.input !== undefined) {
    return { outcome: "error", why: `${oneLine(node.input.slice(node.start, node.end))} is missing` };
  }
  const message = error.summary ?? (thrown instanceof Error ? thrown.message : "it failed");
  const why = inTheirNames(message.slice(0, MAX_WHY));
  const showsValue = error.code !== "no_such_overload" && error.code !== "no_matching_overload";
  return { outcome: "error", why: why.charAt(0).toLowerCase() + why.slice(1), ...(showsValue && { showsValue }) };
}

/** Of a list or map once for all conditions of a decision. */
function recordedIn(input: ConditionInput, value: unknown): unknown {
  if (typeof value !== "object" || value === null) return recordedValue(value);
  const turns = turnsOf(input, STEPS_AT_ONCE);
  return turns.recorded(value, () => recordedValue(value, turns.keysOf));
}

function valueAt(input: ConditionInput, path: readonly string[]): unknown {
  let at: unknown = input;
  for (const member of path) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, member)) return undefined;
    at = (at as Record<string, unknown>)[member];
  }
  return at;
}

/** Nothing that is read has parts: neither the time nor what the library remembers of types follows what the caller sent. */
function readsScalarsOnly({ references, reachesFurther }: ConditionSyntax, input: ConditionInput): boolean {
  if (reachesFurther) return false;
  for (const { path } of references) {
    const value = valueAt(input, path);
    if (typeof value === "object" && value !== null && value !== input.now) return false;
  }
  return true;
}

/** Is one of them the other, or within it? */
function pathsOverlap(one: string, other: string): boolean {
  return one === other || other.startsWith(`${one}.`) || one.startsWith(`${other}.`);
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim();
}
