import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { mutants } from "./mutants/mutants.js";
import { limitFor, QUICK_MS, runTests, verdictOf } from "./mutants/test-run.js";

const root = join(import.meta.dirname, "..");

test("every mutant has a name of its own, and changes exactly one place", () => {
  const names = mutants.map(({ id }) => id);
  expect(names.filter((id, index) => names.indexOf(id) !== index)).toEqual([]);
  const lost = mutants.filter(({ file, find }) => readFileSync(join(root, file), "utf8").split(find).length !== 2);
  expect(lost.map(({ id, file }) => `${id} in ${file}`)).toEqual([]);
});

describe("a run of a mutant's tests", () => {
  const folder = mkdtempSync(join(tmpdir(), "agentid-mutant-run-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  mkdirSync(join(folder, "test"));
  const file = (name: string, body: string) => {
    writeFileSync(join(folder, "test", `${name}.test.js`), `import { describe, expect, test } from "vitest";\n${body}`);
    return [`test/${name}.test.js`];
  };

  test("is green, red by a test that is named, or broken", async () => {
    const green = await runTests(folder, file("green", `test("holds", () => {});`), 60_000);
    expect(green).toMatchObject({ outcome: "green", failed: undefined });
    expect([...green.tookMs.keys()]).toEqual(["test/green.test.js"]);
    const red = file(
      "red",
      `test("holds", () => {});\ndescribe("a door", () => test("is shut", () => expect(1).toBe(2)));`,
    );
    expect(await runTests(folder, red, 60_000)).toMatchObject({
      outcome: "red",
      failed: "test/red.test.js > a door > is shut",
    });
    const broken = await runTests(folder, file("broken", `import "./nowhere.js";\ntest("holds", () => {});`), 60_000);
    expect(broken).toMatchObject({ outcome: "broken", failed: undefined });
    expect(broken.output).toContain("nowhere.js");
  });

  test("that never ends is ended, with what it has started", async () => {
    const pids = join(folder, "pids");
    const program = join(folder, "waits.mjs");
    writeFileSync(program, "setInterval(() => {}, 1000);\n");
    const [path = ""] = file(
      "endless",
      `import { spawn } from "node:child_process";
       import { writeFileSync } from "node:fs";
       test("loops", () => {
         const other = spawn(process.execPath, [${JSON.stringify(program)}], { detached: true, stdio: "ignore" });
         writeFileSync(${JSON.stringify(pids)}, JSON.stringify([process.pid, other.pid]));
         for (;;);
       });`,
    );
    expect(await runTests(folder, [path], 15_000)).toMatchObject({ outcome: "endless" });
    const started: number[] = JSON.parse(readFileSync(pids, "utf8"));
    expect(started).toHaveLength(2);
    await expect.poll(() => started.filter(isRunning)).toEqual([]);
  }, 60_000);

  test("kills by a limit only where the tests are quick without the mutant", () => {
    const run = (outcome: "green" | "red" | "broken" | "endless", failed?: string) =>
      ({ outcome, failed, output: "what was printed" }) as const;
    expect(verdictOf(run("red", "a.test.ts > b"), 1_000)).toEqual({ by: "a.test.ts > b" });
    expect(verdictOf(run("endless"), 1_000)).toEqual({ by: "timeout: no end within 185 s, 1 s without it" });
    expect(verdictOf(run("endless"), QUICK_MS)).toHaveProperty("by");
    expect(verdictOf(run("endless"), QUICK_MS + 1)).toEqual({ problem: expect.stringContaining("shows nothing") });
    expect(verdictOf(run("green"), 1_000)).toEqual({ problem: "SURVIVED: no test noticed" });
    expect(verdictOf(run("broken"), 1_000)).toEqual({ problem: "did not run: what was printed" });
    expect(limitFor(QUICK_MS)).toBeGreaterThan(5 * QUICK_MS);
  });
});

/** One that has ended and is not waited for yet does nothing any more. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
}
