/**
 * Prints the score of our CEL on the conformance data of its specification, with every failure; `--write` records it.
 *
 *   node --import ./test/source-hooks.ts test/policy/programs/cel-score.ts [--write]
 */
import { writeFileSync } from "node:fs";
import { celScore, celTestCount } from "../cel-conformance.js";

const scores = Object.entries(celScore());
const [passed, of] = scores.reduce(([p, o], [, score]) => [p + score.passed, o + score.of], [0, 0]);
for (const [name, score] of scores) {
  process.stdout.write(`${name.padEnd(18)} ${String(score.passed).padStart(5)} of ${score.of}\n`);
  for (const failure of score.failures) process.stdout.write(`    ${failure.replaceAll("\n", " ")}\n`);
}
process.stdout.write(`${passed} of ${of} tests about JSON; the specification has ${celTestCount()} in all\n`);

if (process.argv.includes("--write")) {
  const recorded = Object.fromEntries(scores.map(([name, score]) => [name, { passed: score.passed, of: score.of }]));
  writeFileSync(new URL("../cel-score.json", import.meta.url), `${JSON.stringify(recorded, null, 2)}\n`);
}
