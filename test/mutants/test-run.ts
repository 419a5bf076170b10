import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";

/** One run of some test files, to its end or to its limit. */
export interface TestRun {
  readonly outcome: "green" | "red" | "broken" | "endless";
  /** The first test that failed: `relay.test.ts > a stranger is refused`. */
  readonly failed: string | undefined;
  /** What the tests of each file took, by path from the folder. */
  readonly tookMs: ReadonlyMap<string, number>;
  readonly output: string;
}

/** Tests that take longer than this as they are say nothing when they take longer still. */
export const QUICK_MS = 60_000;

/** How long the tests of a mutant may take that are done in `usualMs` without it. */
export function limitFor(usualMs: number): number {
  return 180_000 + 5 * usualMs;
}

/** What a run of a mutant's tests shows: who killed it, or why nothing is shown. */
export function verdictOf(
  { outcome, failed, output }: Pick<TestRun, "outcome" | "failed" | "output">,
  usualMs: number,
): { readonly by: string } | { readonly problem: string } {
  const seconds = (ms: number) => `${Math.round(ms / 1000)} s`;
  switch (outcome) {
    case "green":
      return { problem: "SURVIVED: no test noticed" };
    // A mutant that does not even load would be killed by any test, and prove nothing.
    case "broken":
      return { problem: `did not run: ${output.slice(-600)}` };
    case "red":
      return { by: failed ?? "" };
    case "endless": {
      const limit = seconds(limitFor(usualMs));
      if (usualMs <= QUICK_MS) return { by: `timeout: no end within ${limit}, ${seconds(usualMs)} without it` };
      return {
        problem: `no end within ${limit}; its tests take ${seconds(usualMs)} without it, so that shows nothing`,
      };
    }
  }
}

/** Runs the files in `folder`, until the first failure. After `limitMs` it is ended with all that it has started. */
export async function runTests(folder: string, files: readonly string[], limitMs: number): Promise<TestRun> {
  const reports = mkdtempSync(join(tmpdir(), "agentid-mutant-report-"));
  const report = join(reports, "report.json");
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const vitest = join("node_modules", "vitest", "vitest.mjs");
  // A group of its own, so that it can be ended as a whole: a test that loops does not answer to its runner.
  const child = spawn(process.execPath, [vitest, "run", "--bail", "1", ...reporters, ...files], {
    cwd: folder,
    detached: true,
    env: { ...process.env, NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const end = () => {
    if (child.pid !== undefined) kill(-child.pid);
    endProgramsOf(folder);
  };
  const interrupted = () => {
    end();
    rmSync(reports, { recursive: true, force: true });
    process.exit(130);
  };
  process.once("SIGINT", interrupted).once("SIGTERM", interrupted);
  let output = "";
  const read = (chunk: Buffer) => {
    output += chunk.toString();
  };
  child.stdout.on("data", read);
  child.stderr.on("data", read);
  let endless = false;
  const timer = setTimeout(() => {
    endless = true;
    end();
  }, limitMs);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", resolve);
    });
    const { failed, tookMs } = reportOf(report, folder);
    const finished = code === 0 ? "green" : failed === undefined ? "broken" : "red";
    const outcome = endless ? "endless" : finished;
    return { outcome, failed, tookMs, output: stripVTControlCharacters(output) };
  } finally {
    endProgramsOf(folder);
    clearTimeout(timer);
    process.off("SIGINT", interrupted).off("SIGTERM", interrupted);
    rmSync(reports, { recursive: true, force: true });
  }
}

/** Ends what still runs a program of the folder, wherever it has gone. */
function endProgramsOf(folder: string): void {
  const running = existsSync("/proc") ? readdirSync("/proc").filter((name) => /^\d+$/.test(name)) : [];
  for (const name of running) {
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, "latin1").split("\0");
      if (Number(name) !== process.pid && words.some((word) => word.startsWith(`${folder}/`))) kill(Number(name));
    } catch {
      // has gone
    }
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // has gone by itself
  }
}

interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly startTime: number;
    readonly endTime: number;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly title: string;
      readonly ancestorTitles: readonly string[];
    }[];
  }[];
}

function reportOf(file: string, folder: string): Pick<TestRun, "failed" | "tookMs"> {
  let results: Report["testResults"];
  try {
    results = (JSON.parse(readFileSync(file, "utf8")) as Report).testResults;
  } catch {
    return { failed: undefined, tookMs: new Map() };
  }
  const short = (name: string) => (name.startsWith(`${folder}/`) ? name.slice(folder.length + 1) : name);
  const failed = results.flatMap(({ name, assertionResults }) =>
    assertionResults
      .filter(({ status }) => status === "failed")
      .map(({ ancestorTitles, title }) => [short(name), ...ancestorTitles, title].join(" > ")),
  );
  const tookMs = new Map(results.map(({ name, startTime, endTime }) => [short(name), endTime - startTime]));
  return { failed: failed[0], tookMs };
}
