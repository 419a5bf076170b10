import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { compileCondition } from "../../src/policy/condition.js";
import { celScore, celTestCount } from "./cel-conformance.js";
import { load } from "./shop.js";

const recorded: Record<string, { passed: number; of: number }> = JSON.parse(
  readFileSync(new URL("cel-score.json", import.meta.url), "utf8"),
);
const scores = celScore();

test("no section of the specification's tests passes fewer than its recorded score", () => {
  const found = Object.fromEntries(Object.entries(scores).map(([name, { passed, of }]) => [name, { passed, of }]));
  expect(Object.keys(found)).toEqual(Object.keys(recorded));
  for (const [name, { passed, of }] of Object.entries(recorded)) {
    expect(found[name]?.of, name).toBe(of);
    expect(found[name]?.passed, `${name}:\n${scores[name]?.failures.join("\n")}`).toBeGreaterThanOrEqual(passed);
  }
});

test("the tests can fail: there are failures, and each names its test, its expression and what came out", () => {
  const failures = Object.values(scores).flatMap((score) => score.failures);
  expect(failures.length).toBeGreaterThan(0);
  expect(failures).toContain(
    "int/double_int_max_range: int(9223372036854775807.0): 9223372036854775808 instead of an error",
  );
});

test("docs/cel.md and README show the recorded score", () => {
  const docs = readFileSync(new URL("../../docs/cel.md", import.meta.url), "utf8");
  for (const [name, { passed, of }] of Object.entries(recorded)) {
    expect(docs).toMatch(new RegExp(`^\\| ${name} \\| ${passed} \\| ${of} \\|`, "m"));
  }
  const core = Object.entries(recorded).filter(([name]) => !LIBRARIES.includes(name));
  const [passed, of] = core.reduce(([p, o], [, score]) => [p + score.passed, o + score.of], [0, 0]);
  const line = `${passed} of ${of}`;
  expect(docs).toContain(line);
  expect(docs).toContain(`${celTestCount().toLocaleString("en-US")} tests`);
  expect(readFileSync(new URL("../../README.md", import.meta.url), "utf8")).toContain(line);
});

test("the rule that docs/cel.md shows is one", () => {
  const docs = readFileSync(new URL("../../docs/cel.md", import.meta.url), "utf8");
  const { set, problems } = load(/```yaml\n(.*?)```/s.exec(docs)?.[1] ?? "");
  expect(problems).toEqual([]);
  expect(set?.rules.map(({ name }) => name)).toEqual(["own-card"]);
});

test("every function that docs/cel.md names is one, and has a bound", () => {
  for (const expression of [
    "args.s.split('a').join('b').substring(1, 2).indexOf('b') == args.s.lastIndexOf('b')",
    "args.s.trim().lowerAscii() == args.s.upperAscii()",
    "args.s.lastIndexOf('b', 1) == args.s.indexOf('b', 0)",
    "string(bytes(args.s)) == bytes(args.s).hex() + bytes(args.s).base64() + bytes(args.s).string()",
    "optional.of(args.s).or(optional.none()).hasValue() && args.?s.value() == args.?t.orValue('x')",
    "int(args.n) + int(uint(3)) == int(now) && double('1.5') > 1.0 && bool('true') && type(1) == int",
    "duration('1h').getMinutes() == 60 && duration('1h').getHours() == 1 && timestamp(0).getSeconds() == 0",
    "size(args.s) == args.s.size() && args.s.endsWith('x') && bytes(args.s).at(0) == 1 && size(bytes(args.s).json()) == 1",
    "cel.bind(x, args.s, x == 'y') && has(args.s) && dyn(1) == 1",
  ]) {
    expect(compileCondition(expression).bound({ values: 16, longest: 64 }), expression).toBeLessThan(30_000_000);
  }
});

/** What a CEL implementation may have or not. */
const LIBRARIES = ["bindings_ext", "block_ext", "encoders_ext", "macros2", "math_ext", "optionals", "string_ext"];
