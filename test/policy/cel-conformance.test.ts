import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { celScore, celTestCount } from "./cel-conformance.js";

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
  expect(failures).toContain("conversions/int/double_int_max_range: int(9223372036854775807.0): 9223372036854775808 instead of an error".slice("conversions/".length));
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

/** What a CEL implementation may have or not. */
const LIBRARIES = ["bindings_ext", "block_ext", "encoders_ext", "macros2", "math_ext", "optionals", "string_ext"];
