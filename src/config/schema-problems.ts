import { z } from "zod";
import type { ConfigProblem } from "./config-error.js";
import { suggestion } from "./nearest.js";
import type { ValuePath, YamlSource } from "./yaml-source.js";

type Issue = z.core.$ZodIssue;

/**
 * Checks a parsed file against `schema`: the value, or every problem with line, column and the nearest valid choice.
 */
export function checkAgainst<Schema extends z.ZodType>(
  schema: Schema,
  source: YamlSource,
): { value: z.infer<Schema>; problems: readonly [] } | { value: undefined; problems: readonly ConfigProblem[] } {
  const parsed = schema.safeParse(source.value);
  if (parsed.success) return { value: parsed.data, problems: [] };
  const shape = shapeOf(schema);
  return {
    value: undefined,
    problems: causes(parsed.error.issues).flatMap((issue) => problemsOf(issue, [], shape, source)),
  };
}

/** A mistyped key is the cause, that its mapping then lacks something only follows from it. */
function causes(issues: readonly Issue[]): readonly Issue[] {
  const mistyped = new Set(issues.flatMap((one) => (one.code === "unrecognized_keys" ? [one.path.join("\0")] : [])));
  return issues.filter((one) => one.code !== "custom" || !mistyped.has(one.path.join("\0")));
}

function problemsOf(issue: Issue, base: ValuePath, shape: JsonSchema, source: YamlSource): readonly ConfigProblem[] {
  const path = [...base, ...issue.path.map((step) => (typeof step === "symbol" ? String(step) : step))];
  switch (issue.code) {
    case "unrecognized_keys": {
      const known = knownKeysAt(shape, path, source.value);
      return issue.keys.map((key) =>
        source.problem([...path, key], `unknown key ${JSON.stringify(key)}${suggestion(key, known)}`, "key"),
      );
    }
    case "invalid_union":
      return unionProblems(issue, path, shape, source);
    default: {
      const found = valueAt(source.value, path);
      const { words, part } = wrongValue(issue, found, path.length === 0);
      const near = issue.code === "invalid_value" && typeof found === "string" ? nearestOf(found, issue.values) : "";
      return [source.problem(path, `${words}${near}`, part)];
    }
  }
}

function nearestOf(found: string, values: readonly unknown[]): string {
  return suggestion(found, values.map(String)).replace(/^; known here.*/, "");
}

/** What is wrong with the value `found`, in words, and whether its key or the value itself is the place to look at. */
export function wrongValue(
  issue: Issue,
  found: unknown,
  isFile: boolean,
): { readonly words: string; readonly part?: "key" } {
  switch (issue.code) {
    case "invalid_type":
      return missingOrWrongKind(issue.expected, found, isFile);
    case "invalid_value":
      return { words: `must be ${issue.values.map(String).join(" or ")}` };
    case "too_small":
      if (issue.origin === "array" || issue.origin === "string") return { words: "must not be empty" };
      return { words: `must be ${issue.minimum} or more` };
    case "too_big":
      if (issue.origin === "string") return { words: `must be at most ${issue.maximum} characters` };
      return { words: `must be ${issue.maximum} or less` };
    default:
      return { words: issue.message };
  }
}

/** A union's problems are those of the one form that the written value has: a list, text or a mapping. */
function unionProblems(
  issue: Extract<Issue, { code: "invalid_union" }>,
  path: ValuePath,
  shape: JsonSchema,
  source: YamlSource,
): readonly ConfigProblem[] {
  const written = valueAt(source.value, path);
  const ofThisForm = issue.errors.filter(
    (issues) => !issues.some((one) => one.code === "invalid_type" && one.path.length === 0),
  );
  const chosen = ofThisForm[0];
  if (chosen !== undefined) return causes(chosen).flatMap((one) => problemsOf(one, path, shape, source));
  const kinds = issue.errors.flatMap((issues) =>
    issues.flatMap((one) => (one.code === "invalid_type" ? [kindName(one.expected)] : [])),
  );
  if (written === undefined || written === null) return [source.problem(path, "has no value", "key")];
  return [source.problem(path, `must be ${kinds.join(" or ")}, not ${kindOf(written)}`)];
}

function missingOrWrongKind(
  expected: string,
  found: unknown,
  isFile: boolean,
): { readonly words: string; readonly part?: "key" } {
  if (found === undefined) return { words: "is missing", part: "key" };
  if (found === null) return { words: isFile ? "the file is empty" : "has no value", part: "key" };
  const quotes = expected === "string" && typeof found !== "object" ? "; write it in quotes" : "";
  return { words: `must be ${kindName(expected)}, not ${kindOf(found)}${quotes}` };
}

function kindName(expected: string): string {
  switch (expected) {
    case "string":
      return "text";
    case "array":
      return "a list";
    case "object":
    case "record":
      return "a mapping";
    case "int":
      return "a whole number";
    case "boolean":
      return "true or false";
    default:
      return `a ${expected}`;
  }
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  switch (typeof value) {
    case "string":
      return "text";
    case "number":
      return Number.isInteger(value) ? "a number" : "a fraction";
    case "boolean":
      return "true or false";
    default:
      return value === null ? "nothing" : "a mapping";
  }
}

/** The value at `path`, or undefined. */
export function valueAt(value: unknown, path: ValuePath): unknown {
  let current = value;
  for (const step of path) {
    if (typeof current !== "object" || current === null || !Object.hasOwn(current, step)) return undefined;
    current = (current as Record<string | number, unknown>)[step];
  }
  return current;
}

type JsonSchema = z.core.JSONSchema.BaseSchema;

/** Made once a schema, and only when something is wrong. */
function shapeOf(schema: z.ZodType): JsonSchema {
  let shape = SHAPES.get(schema);
  if (shape === undefined) {
    shape = z.toJSONSchema(schema, { io: "input" });
    SHAPES.set(schema, shape);
  }
  return shape;
}

const SHAPES = new WeakMap<z.ZodType, JsonSchema>();

/** The keys that `schema` knows at `path` of `value`. */
export function knownKeys(schema: z.ZodType, path: ValuePath, value: unknown): readonly string[] {
  return knownKeysAt(shapeOf(schema), path, value);
}

/** The keys that the schema knows at `path`, following the form that the written value has. */
function knownKeysAt(shape: JsonSchema, path: ValuePath, value: unknown): readonly string[] {
  let current: JsonSchema | undefined = formOf(shape, value);
  for (const [index, step] of path.entries()) {
    const inner: unknown =
      typeof step === "number" ? current?.items : (current?.properties?.[step] ?? current?.additionalProperties);
    if (typeof inner !== "object" || inner === null || Array.isArray(inner)) return [];
    current = formOf(inner as JsonSchema, valueAt(value, path.slice(0, index + 1)));
  }
  return Object.keys(current?.properties ?? {});
}

function formOf(schema: JsonSchema, value: unknown): JsonSchema {
  const wanted = Array.isArray(value) ? "array" : typeof value;
  const form = schema.anyOf?.find((one) => typeof one === "object" && one.type === wanted);
  return typeof form === "object" ? form : schema;
}
