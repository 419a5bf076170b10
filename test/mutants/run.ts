import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";
import { mutants as allMutants, type Mutant } from "./mutants.ts";

/*
 * Shows that the tests can fail: switches off one check at a time in a copy of the real code and runs the tests that cite it.
 * They must be green before and red after.
 *
 *   npm run mutants                  all of them
 *   npm run mutants -- --sample 6    six, another six for every commit
 *   npm run mutants -- audit-chain   the named ones
 *   --report FILE                    totals as JSON
 */

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const COPIED = ["src", "test", "templates", "bin", "scripts", "package.json", "tsconfig.json", "vitest.config.ts"];

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
let outcomes: readonly Outcome[] = [];
try {
  for (const name of COPIED) {
    cpSync(join(root, name), join(copy, name), {
      recursive: true,
      filter: (source) => !source.startsWith(join(root, "scripts", "node", "node_modules")),
    });
  }
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  outcomes = [...baseline(chosen), ...chosen.mutants.map(kill)];
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
function baseline({ mutants: wanted }: Choice): readonly Outcome[] {
  const files = [...new Set(wanted.flatMap(({ tests }) => tests))];
  const run = vitest(files);
  if (run.status === 0) {
    print(`green   ${files.length} test files on the code as it is`);
    return [];
  }
  print(
    stripVTControlCharacters(run.stdout)
      .split("\n")
      .filter((line) => /FAIL|Error|❯ test/.test(line))
      .join("\n"),
  );
  const [mutant] = wanted;
  return mutant === undefined ? [] : [{ mutant, problem: "the cited tests fail on the code as it is" }];
}

function kill(mutant: Mutant): Outcome {
  const file = join(copy, mutant.file);
  const honest = readFileSync(file, "utf8");
  const places = honest.split(mutant.find).length - 1;
  if (places !== 1) return report(mutant, `stale: what it replaces stands in ${mutant.file} ${places} times`);
  writeFileSync(
    file,
    honest.replace(mutant.find, () => mutant.replace),
  );
  try {
    const run = vitest(mutant.tests);
    if (run.status === 0) return report(mutant, "SURVIVED: no test noticed");
    // A mutant that does not even load would be killed by any test, and prove nothing.
    if (!/Tests .*failed/.test(stripVTControlCharacters(run.stdout)))
      return report(mutant, `did not run: ${stripVTControlCharacters(run.stdout).slice(-600)}`);
    return report(mutant, undefined);
  } finally {
    writeFileSync(file, honest);
  }
}

function report(mutant: Mutant, problem: string | undefined): Outcome {
  print(
    `${problem === undefined ? "killed" : "ALIVE "}  ${mutant.id.padEnd(28)} ${mutant.check}${problem === undefined ? "" : `\n        ${problem}`}`,
  );
  return { mutant, problem };
}

function vitest(files: readonly string[]): SpawnSyncReturns<string> {
  if (files.some((file) => /^test\/(e2e|liars)\//.test(file))) {
    // Those drive the built program. What a mutant breaks of the types does not keep it from being built.
    for (const script of [join("node_modules", "typescript", "bin", "tsc"), join("scripts", "bundle.mjs")]) {
      if (existsSync(join(copy, script))) spawnSync(process.execPath, [script], { cwd: copy, stdio: "ignore" });
    }
  }
  return spawnSync(process.execPath, [join("node_modules", "vitest", "vitest.mjs"), "run", "--bail", "1", ...files], {
    cwd: copy,
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, NO_COLOR: "1" },
  });
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
