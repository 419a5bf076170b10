import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { mutants as allMutants, type Mutant } from "./mutants.ts";
import { limitFor, runTests, type TestRun, verdictOf } from "./test-run.ts";

/*
 * Shows that the tests can fail: switches off one check at a time in a copy of the real code and runs the tests that cite it.
 * They must be green before and red after; the test that notices is named. A run that never ends counts where its tests are quick without the mutant.
 *
 *   npm run mutants                  all of them
 *   npm run mutants -- --sample 6    six, another six for every commit
 *   npm run mutants -- audit-chain   the named ones
 *   --report FILE                    totals as JSON
 */

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const COPIED = ["src", "test", "templates", "bin", "scripts", "package.json", "tsconfig.json", "vitest.config.ts"];

/** As long as a run without mutants may take: the tests have limits of their own. */
const BASELINE_LIMIT_MS = 3_600_000;

interface Outcome {
  readonly mutant: Mutant;
  readonly problem: string | undefined;
}

const canSandbox =
  spawnSync("bwrap", ["--unshare-user", "--unshare-net", "--ro-bind", "/", "/", "true"], { stdio: "ignore" }).status ===
  0;
const mutants = allMutants.filter(({ needsSandbox }) => canSandbox || needsSandbox !== true);
if (mutants.length < allMutants.length) {
  print(`SKIPPED ${allMutants.length - mutants.length} mutants: bubblewrap makes no sandbox here`);
}
const chosen = choose(process.argv.slice(2));
const copy = mkdtempSync(join(tmpdir(), "agentid-mutants-"));
// Some tests start programs of the copy as another user.
chmodSync(copy, 0o755);
const outcomes: Outcome[] = [];
try {
  for (const name of COPIED) {
    cpSync(join(root, name), join(copy, name), {
      recursive: true,
      filter: (source) => !source.startsWith(join(root, "scripts", "node", "node_modules")),
    });
  }
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  const honest = await baseline(chosen);
  outcomes.push(...honest.outcomes);
  for (const mutant of chosen.mutants) outcomes.push(await kill(mutant, honest.tookMs));
} finally {
  rmSync(copy, { recursive: true, force: true });
}
const failed = outcomes.filter(({ problem }) => problem !== undefined).length;
const passed = outcomes.length - failed;
if (chosen.reportFile !== undefined) {
  writeFileSync(chosen.reportFile, JSON.stringify({ numPassedTests: passed, numFailedTests: failed }));
}
print(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

interface Choice {
  readonly mutants: readonly Mutant[];
  readonly reportFile: string | undefined;
}

function choose(args: readonly string[]): Choice {
  let reportFile: string | undefined;
  let sample: number | undefined;
  const names: string[] = [];
  for (let index = 0; index < args.length; index += 1) {
    if (args[index] === "--report") reportFile = args[++index];
    else if (args[index] === "--sample") sample = Number(args[++index]);
    else names.push(args[index] ?? "");
  }
  const unknown = names.filter((name) => !mutants.some(({ id }) => id === name));
  if (unknown.length > 0) throw new Error(`no mutant ${unknown.join(", ")}`);
  if (names.length > 0) return { mutants: mutants.filter(({ id }) => names.includes(id)), reportFile };
  if (sample === undefined) return { mutants, reportFile };
  const commit = spawnSync("git", ["rev-parse", "HEAD"], { cwd: root, encoding: "utf8" }).stdout.trim();
  const rank = ({ id }: Mutant) => createHash("sha256").update(commit).update(id).digest("hex");
  return { mutants: [...mutants].sort((a, b) => (rank(a) < rank(b) ? -1 : 1)).slice(0, sample), reportFile };
}

/** The cited tests must be green on the code as it is: otherwise red would mean nothing. */
async function baseline({ mutants: wanted }: Choice): Promise<Pick<TestRun, "tookMs"> & { outcomes: Outcome[] }> {
  const files = [...new Set(wanted.flatMap(({ tests }) => tests))];
  const { outcome, output, tookMs } = await run(files, BASELINE_LIMIT_MS);
  if (outcome === "green") {
    print(`green   ${files.length} test files on the code as it is`);
    return { outcomes: [], tookMs };
  }
  print(
    output
      .split("\n")
      .filter((line) => /FAIL|Error|❯ test/.test(line))
      .join("\n"),
  );
  const [mutant] = wanted;
  const problem = "the cited tests fail on the code as it is";
  return { outcomes: mutant === undefined ? [] : [{ mutant, problem }], tookMs };
}

async function kill(mutant: Mutant, tookMs: TestRun["tookMs"]): Promise<Outcome> {
  const file = join(copy, mutant.file);
  const honest = readFileSync(file, "utf8");
  const places = honest.split(mutant.find).length - 1;
  if (places !== 1)
    return report(mutant, { problem: `stale: what it replaces stands in ${mutant.file} ${places} times` });
  writeFileSync(
    file,
    honest.replace(mutant.find, () => mutant.replace),
  );
  const usualMs = mutant.tests.reduce((sum, test) => sum + (tookMs.get(test) ?? 0), 0);
  try {
    return report(mutant, verdictOf(await run(mutant.tests, limitFor(usualMs)), usualMs));
  } finally {
    writeFileSync(file, honest);
  }
}

function report(mutant: Mutant, verdict: ReturnType<typeof verdictOf>): Outcome {
  const dead = "by" in verdict;
  print(`${dead ? "killed" : "ALIVE "}  ${mutant.id.padEnd(28)} ${mutant.check}`);
  print(`        ${dead ? `by ${verdict.by}` : verdict.problem}`);
  return { mutant, problem: dead ? undefined : verdict.problem };
}

function run(files: readonly string[], limitMs: number): Promise<TestRun> {
  if (files.some((file) => /^test\/(e2e|liars)\//.test(file))) {
    // Those drive the built program. What a mutant breaks of the types does not keep it from being built.
    for (const script of [join("node_modules", "typescript", "bin", "tsc"), join("scripts", "bundle.mjs")]) {
      if (existsSync(join(copy, script))) spawnSync(process.execPath, [script], { cwd: copy, stdio: "ignore" });
    }
  }
  return runTests(copy, files, limitMs);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
