import { Environment, type EvaluationError, type ParseResult } from "@marcbachmann/cel-js";
import type { Properties } from "./access-request.js";
import { ConditionError, KNOWN_MEMBERS, LINEAR_MATCHES, linearPattern, readSyntax } from "./condition-syntax.js";
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
  | { readonly outcome: "false" }
  /** A missing member, a wrong type, an answer that is not a boolean: never a match for an allow, always one for a deny. */
  | { readonly outcome: "error"; readonly why: string };

/** A CEL expression over `args`, `caller`, `resource`, `request` and `now`, parsed and checked once. */
export interface Condition {
  readonly source: string;
  /** The operands of its outermost `&&`, as written. */
  readonly terms: readonly string[];
  /** What it reads: `["args", "amount"]`. */
  readonly references: readonly (readonly string[])[];
  /** Never throws. */
  evaluate(input: ConditionInput): ConditionOutcome;
  /** In words, with the values: `args.amount <= 1000: 4200 <= 1000 is false`. */
  describe(input: ConditionInput, outcome: ConditionOutcome): string;
  /** The values that the condition read: `{"args.amount": 4200}`. Absent members are left out, long ones shortened. */
  valuesUsed(input: ConditionInput): Properties;
  /** Those of its variables that it reads: `args`, `user`. */
  readonly variables: ReadonlySet<string>;
}

const MAX_SOURCE_LENGTH = 4096;
const MAX_MATCHED_LENGTH = 65_536;
const MAX_WALKED_VALUES = 1_000;
const MAX_WALKED_TEXT = 65_536;
const TRUE: ConditionOutcome = { outcome: "true" };
const FALSE: ConditionOutcome = { outcome: "false" };

const TYPES: Readonly<Record<string, string>> = { now: "google.protobuf.Timestamp", actors: "list<string>" };

const environment = new Environment({
  limits: { maxAstNodes: 400, maxDepth: 24, maxListElements: 200, maxMapEntries: 50, maxCallArguments: 8 },
});
for (const variable of Object.keys(KNOWN_MEMBERS)) {
  environment.registerVariable(variable, TYPES[variable] ?? "map<string, dyn>");
}
environment.registerFunction(`string.${LINEAR_MATCHES}(string): bool`, (text: string, pattern: string) => {
  if (text.length > MAX_MATCHED_LENGTH) throw new Error(`text longer than ${MAX_MATCHED_LENGTH} characters`);
  return linearPattern(pattern).matcher(text).find();
});

/** Compiles a condition. Throws ConditionError with the position in `source`. */
export function compileCondition(source: string): Condition {
  if (source.length > MAX_SOURCE_LENGTH) {
    throw new ConditionError(`condition is longer than ${MAX_SOURCE_LENGTH} characters`, 0);
  }
  const parsed = parse(source);
  const syntax = readSyntax(parsed.ast);
  const checked = parsed.check();
  if (!checked.valid) {
    throw new ConditionError(checked.error?.summary ?? "condition is not valid", checked.error?.range?.start ?? 0);
  }
  if (checked.type !== "bool" && checked.type !== "dyn") {
    throw new ConditionError(`condition must be true or false, not ${checked.type}`, 0);
  }

  const evaluate = (input: ConditionInput): ConditionOutcome => {
    if (
      syntax.walks &&
      !isSmall([input.args, input.request.query, input.context, input.subject, input.user, input.resource])
    ) {
      return { outcome: "error", why: `arguments too large to walk over (${MAX_WALKED_VALUES} values)` };
    }
    return outcomeOf(parsed, input);
  };

  // Only a denial and `explain` need the parts, so they are compiled when first asked for.
  let parts: readonly ConditionPart[] | undefined;
  const failingPart = (input: ConditionInput, wanted: ConditionOutcome["outcome"]): ConditionPart | undefined => {
    parts ??= syntax.conjuncts.map(({ start, end }) => {
      const part = source.slice(start, end);
      const run = parse(part);
      readSyntax(run.ast);
      return { source: part, text: oneLine(part), start, end, run };
    });
    if (parts.length === 1) return parts[0];
    return parts.find((part) => outcomeOf(part.run, input).outcome === wanted);
  };

  return {
    source,
    terms: syntax.conjuncts.map(({ start, end }) => source.slice(start, end)),
    references: syntax.references.map(({ path }) => path),
    variables: new Set(syntax.references.map(({ path: [root = ""] }) => root)),
    evaluate,
    describe(input, outcome) {
      if (outcome.outcome === "true") {
        return `${oneLine(source)}: ${withValues(source, 0, source.length, input)} is true`;
      }
      const part = failingPart(input, outcome.outcome) ?? {
        source,
        text: oneLine(source),
        start: 0,
        end: source.length,
      };
      if (outcome.outcome === "error") return `${part.text}: ${outcome.why}`;
      const valued = withValues(part.source, part.start, part.end, input);
      return valued === part.text ? `${part.text} is false` : `${part.text}: ${valued} is false`;
    },
    valuesUsed(input) {
      const values: Record<string, unknown> = {};
      for (const reference of syntax.references) {
        const value = valueAt(input, reference.path);
        if (value !== undefined) values[reference.path.join(".")] = recordedValue(value);
      }
      return values;
    },
  };

  function withValues(part: string, start: number, end: number, input: ConditionInput): string {
    let text = "";
    let at = start;
    for (const reference of syntax.references) {
      if (reference.start < at || reference.end > end) continue;
      const value = valueAt(input, reference.path);
      if (value === undefined) continue;
      text += part.slice(at - start, reference.start - start) + displayValue(value);
      at = reference.end;
    }
    return oneLine(text + part.slice(at - start));
  }
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

function outcomeOf(run: ParseResult, input: ConditionInput): ConditionOutcome {
  try {
    const value: unknown = run({ ...input });
    if (value === true) return TRUE;
    if (value === false) return FALSE;
    return { outcome: "error", why: "the condition gave no boolean" };
  } catch (thrown) {
    const error = thrown as Partial<EvaluationError>;
    const why = (error.summary ?? (thrown instanceof Error ? thrown.message : "it failed")).replaceAll(
      /dyn<([^<>]*)>/g,
      "$1",
    );
    return { outcome: "error", why: why.charAt(0).toLowerCase() + why.slice(1, 200) };
  }
}

function valueAt(input: ConditionInput, path: readonly string[]): unknown {
  let at: unknown = input;
  for (const member of path) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, member)) return undefined;
    at = (at as Record<string, unknown>)[member];
  }
  return at;
}

/** Bounds what a macro walks over: at most 1,000 values and 64 KiB of text, so that two nested walks stay in milliseconds. */
function isSmall(roots: readonly unknown[]): boolean {
  const pending: unknown[] = [...roots];
  let values = 0;
  let text = 0;
  while (pending.length > 0) {
    const value = pending.pop();
    values += 1;
    if (typeof value === "string") text += value.length;
    else if (typeof value === "object" && value !== null) {
      for (const key in value) {
        text += key.length;
        pending.push((value as Record<string, unknown>)[key]);
        if (pending.length > MAX_WALKED_VALUES) return false;
      }
    }
    if (values > MAX_WALKED_VALUES || text > MAX_WALKED_TEXT) return false;
  }
  return true;
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim();
}
