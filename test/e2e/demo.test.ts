import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { describe, expect, it } from "vitest";
import { openTerminal } from "../dashboard/terminal-session.js";
import { agentid, bin, makeProject, run, runtimeBase } from "./agentid.js";

const root = dirname(dirname(bin));
const DEADLINE_MS = 120_000;

interface Told {
  readonly scenes: readonly string[];
  readonly shown: readonly string[];
  readonly notShown: readonly string[];
}

/** What the demonstration said, without colours and without what differs from run to run. */
function told(output: string): Told {
  const lines = stripVTControlCharacters(output).split(/\r?\n/);
  const after = (mark: string) =>
    lines.filter((line) => line.startsWith(mark)).map((line) => line.slice(mark.length).replaceAll(/\d+/g, "N"));
  return {
    scenes: lines.filter((line) => /^\d\. /.test(line)),
    shown: after("   ✓ shown  "),
    notShown: after("   ✗ NOT SHOWN  "),
  };
}

/** Processes that work in our temporary folder, or were told of something in it. */
function processesLeft(): string[] {
  const own = runtimeBase();
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const folder = readlinkSync(`/proc/${pid}/cwd`);
        const command = readFileSync(`/proc/${pid}/cmdline`, "latin1");
        return folder.startsWith(own) || command.includes(own);
      } catch {
        // It has just ended, or it is another user's.
        return false;
      }
    });
}

function expectNothingLeft(): void {
  expect(processesLeft()).toEqual([]);
  const left = readdirSync(runtimeBase(), { recursive: true, encoding: "utf8" });
  expect(left.filter((name) => /agentid-demo-|\.sock$/.test(name))).toEqual([]);
}

describe.runIf(process.platform === "linux")("agentid demo", () => {
  let plain: Told | undefined;

  it(
    "--plain --fast, piped: every scene shows what it says, and nothing is left behind",
    async () => {
      const done = await agentid(["demo", "--plain", "--fast"], { cwd: makeProject({}) });
      expect({ code: done.code, stderr: done.stderr }).toEqual({ code: 0, stderr: "" });
      plain = told(done.stdout);
      expect(plain.scenes.map((line) => line.slice(3))).toEqual([
        ...["Birth", "Allowed", "Denied by default", "One tool, two agents", "The hijack"],
        ...["Fixing it", "The impostor", "The clock", "The record"],
      ]);
      expect(plain.shown.length).toBeGreaterThanOrEqual(2 * plain.scenes.length);
      expect(plain.notShown).toEqual([]);
      expect(done.stdout).toContain("9 of 9 scenes");
      expect(done.stdout).not.toContain("\u001b");
      expectNothingLeft();
    },
    DEADLINE_MS,
  );

  it(
    "--fast in a terminal: the same steps, with colour",
    async () => {
      const terminal = openTerminal([bin, "demo", "--fast"], terminalOptions());
      expect(await terminal.exited).toBe(0);
      expect(told(terminal.raw())).toEqual(plain);
      expect(terminal.raw()).toContain("\u001b[32m✓ shown");
      expectNothingLeft();
    },
    DEADLINE_MS,
  );

  it(
    "Ctrl-C in the middle ends it, says so in its exit code, and leaves nothing behind",
    async () => {
      const terminal = openTerminal([bin, "demo"], terminalOptions());
      await terminal.until("✓ shown  planner has its identity");
      expect(processesLeft().length).toBeGreaterThan(2);
      terminal.type("\u0003");
      expect(await terminal.exited).toBe(130);
      expectNothingLeft();
    },
    DEADLINE_MS,
  );

  it(
    "with a policy that permits too much it says what was not shown, and fails",
    async () => {
      const broken = packageWithPolicy((policy) =>
        policy.replace("args.amount <= 1000", "args.amount <= 1000 || args.amount == 9000"),
      );
      const done = await run(process.execPath, [join(broken, "bin/agentid.js"), "demo", "--plain", "--fast"], {
        cwd: makeProject({}),
      });
      expect(done.code).toBe(1);
      expect(told(done.stdout).notShown).toEqual(
        expect.arrayContaining(["the refund did not happen, and the reason names the amount"]),
      );
      expect(done.stdout).not.toContain("9 of 9 scenes");
      expectNothingLeft();
    },
    DEADLINE_MS,
  );
});

function terminalOptions() {
  return { columns: 100, rows: 50, environment: { TMPDIR: runtimeBase(), XDG_RUNTIME_DIR: "" } };
}

/** The package as it would be installed, with another policy in its demonstration. */
function packageWithPolicy(change: (policy: string) => string): string {
  const copy = mkdtempSync(join(runtimeBase(), "package-"));
  chmodSync(copy, 0o755);
  for (const name of ["bin", "dist", "templates"]) cpSync(join(root, name), join(copy, name), { recursive: true });
  mkdirSync(join(copy, "node_modules"), { recursive: true });
  for (const name of readdirSync(join(root, "node_modules"))) {
    symlinkSync(join(root, "node_modules", name), join(copy, "node_modules", name));
  }
  cpSync(join(root, "package.json"), join(copy, "package.json"));
  const file = join(copy, "templates/demo/policies/shop.yaml");
  const policy = readFileSync(file, "utf8");
  const changed = change(policy);
  expect(changed).not.toBe(policy);
  writeFileSync(file, changed);
  return copy;
}
