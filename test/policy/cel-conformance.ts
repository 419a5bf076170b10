import { tests as conformance } from "@bufbuild/cel-spec/testdata/conformance.js";
import type { Environment } from "@marcbachmann/cel-js";
import { Duration, UnsignedInt } from "@marcbachmann/cel-js/evaluator";
import { celEnvironment } from "../../src/policy/condition-environment.js";
import { readSyntax } from "../../src/policy/condition-syntax.js";

/*
 * The conformance data of the CEL specification, run through the environment that conditions have. Left out are the tests whose expression, bindings
 * or result need protobuf messages and enums, and those that only ask for a type: conditions see JSON. Everything else counts, also what is refused
 * when it is loaded (a pattern that is no literal) and extensions that the library does not have.
 */

export interface SectionScore {
  readonly passed: number;
  readonly of: number;
  /** `suite/test: expression: what came out`. */
  readonly failures: readonly string[];
}

interface Suite {
  readonly name: string;
  readonly suites?: readonly Suite[];
  readonly tests?: readonly { readonly original: Test }[];
}

interface Test {
  readonly name?: string;
  readonly expr: string;
  readonly value?: CelValue;
  readonly evalError?: unknown;
  readonly disableCheck?: boolean;
  readonly checkOnly?: boolean;
  readonly typedResult?: unknown;
  readonly container?: string;
  readonly typeEnv?: readonly { readonly name: string; readonly ident?: { readonly type: unknown } }[];
  readonly bindings?: Readonly<Record<string, { readonly value: CelValue }>>;
}

interface CelValue {
  readonly int64Value?: string;
  readonly uint64Value?: string;
  readonly doubleValue?: number | string;
  readonly stringValue?: string;
  readonly bytesValue?: string;
  readonly boolValue?: boolean;
  readonly nullValue?: null;
  readonly typeValue?: string;
  readonly listValue?: { readonly values?: readonly CelValue[] };
  readonly mapValue?: { readonly entries?: readonly { readonly key: CelValue; readonly value: CelValue }[] };
}

/** The score of every section that has tests for JSON, by its name. */
export function celScore(): Record<string, SectionScore> {
  const scores: Record<string, SectionScore> = {};
  for (const section of (conformance as unknown as Suite).suites ?? []) {
    const outcomes = testsOf(section)
      .filter(([, test]) => isAboutJson(test))
      .map(([name, test]) => {
        const failure = failureOf(test);
        return failure === undefined ? undefined : `${name}: ${test.expr.slice(0, 120)}: ${failure}`;
      });
    const failures = outcomes.filter((failure) => failure !== undefined);
    if (outcomes.length > 0) {
      scores[section.name] = { passed: outcomes.length - failures.length, of: outcomes.length, failures };
    }
  }
  return scores;
}

/** How many tests the specification has. */
export function celTestCount(): number {
  return ((conformance as unknown as Suite).suites ?? []).flatMap(testsOf).length;
}

function testsOf(suite: Suite): readonly (readonly [string, Test])[] {
  const own = (suite.tests ?? []).map(({ original }) => [`${suite.name}/${original.name ?? ""}`, original] as const);
  return [...(suite.suites ?? []).flatMap(testsOf), ...own];
}

function isAboutJson(test: Test): boolean {
  if (test.checkOnly === true || test.typedResult !== undefined) return false;
  if (test.container !== undefined && test.container !== "") return false;
  if (/TestAllTypes|Value\{|google\.protobuf\.(?!Timestamp|Duration)|\{`/.test(test.expr)) return false;
  return !/"(objectValue|enumValue|messageType|function)"/.test(
    JSON.stringify([test.value, test.bindings, test.typeEnv]),
  );
}

/** What is wrong with what comes out, or undefined where it is what the specification says. */
function failureOf(test: Test): string | undefined {
  let result: unknown;
  try {
    const run = environmentFor(test).parse(test.expr);
    readSyntax(run.ast);
    if (test.disableCheck !== true) {
      const checked = run.check();
      if (!checked.valid) throw checked.error ?? new Error("not valid");
    }
    result = run(
      Object.fromEntries(Object.entries(test.bindings ?? {}).map(([name, { value }]) => [name, valueFrom(value)])),
    );
  } catch (thrown) {
    if (test.evalError !== undefined) return undefined;
    const error = thrown as { summary?: string; message?: string };
    return (error.summary ?? error.message ?? String(thrown)).split("\n")[0];
  }
  if (test.evalError !== undefined) return `${shown(result)} instead of an error`;
  // A test without a result expects true.
  const expected = test.value ?? { boolValue: true };
  return isValue(result, expected) ? undefined : `${shown(result)} instead of ${JSON.stringify(expected)}`;
}

function environmentFor(test: Test): Environment {
  const environment = celEnvironment();
  const names = new Set([...(test.typeEnv ?? []).map(({ name }) => name), ...Object.keys(test.bindings ?? {})]);
  for (const name of names) environment.registerVariable(name, "dyn");
  return environment;
}

function valueFrom(value: CelValue): unknown {
  if (value.int64Value !== undefined) return BigInt(value.int64Value);
  if (value.uint64Value !== undefined) return new UnsignedInt(BigInt(value.uint64Value));
  if (value.doubleValue !== undefined) return Number(value.doubleValue);
  if (value.bytesValue !== undefined) return new Uint8Array(Buffer.from(value.bytesValue, "base64"));
  if (value.listValue !== undefined) return (value.listValue.values ?? []).map(valueFrom);
  if (value.mapValue !== undefined) {
    return Object.fromEntries(
      (value.mapValue.entries ?? []).map((entry) => [String(valueFrom(entry.key)), valueFrom(entry.value)]),
    );
  }
  return value.stringValue ?? value.boolValue ?? null;
}

function isValue(result: unknown, expected: CelValue): boolean {
  if (expected.int64Value !== undefined) return result === BigInt(expected.int64Value);
  if (expected.uint64Value !== undefined) {
    return result instanceof UnsignedInt && result.valueOf() === BigInt(expected.uint64Value);
  }
  if (expected.doubleValue !== undefined) return Object.is(result, Number(expected.doubleValue));
  if (expected.bytesValue !== undefined) {
    return result instanceof Uint8Array && Buffer.from(result).equals(Buffer.from(expected.bytesValue, "base64"));
  }
  if (expected.typeValue !== undefined) return String(result) === `Type<${expected.typeValue}>`;
  if (expected.listValue !== undefined) {
    const values = expected.listValue.values ?? [];
    return (
      Array.isArray(result) && result.length === values.length && values.every((each, i) => isValue(result[i], each))
    );
  }
  if (expected.mapValue !== undefined) {
    const entries = expected.mapValue.entries ?? [];
    if (typeof result !== "object" || result === null || Array.isArray(result)) return false;
    const found = result instanceof Map ? result : new Map(Object.entries(result));
    return (
      found.size === entries.length &&
      entries.every(({ key, value }) => {
        const name = valueFrom(key);
        return isValue(found.has(name) ? found.get(name) : found.get(String(name)), value);
      })
    );
  }
  return result === (expected.stringValue ?? expected.boolValue ?? null);
}

function shown(value: unknown): string {
  if (value instanceof Duration || typeof value === "bigint") return String(value);
  return (
    JSON.stringify(value, (_key, each) => (typeof each === "bigint" ? String(each) : each)) ?? String(value)
  ).slice(0, 80);
}
