import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { spawn } from "@lydell/node-pty";
import xterm from "@xterm/headless";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** The dashboard compiled as it is shipped, with a program that runs it and says how it ended. */
export interface Program {
  readonly main: string;
  remove(): void;
}

export function compileDashboard(): Program {
  const directory = mkdtempSync(join(tmpdir(), "agentid-dashboard-"));
  symlinkSync(join(root, "node_modules"), join(directory, "node_modules"));
  writeFileSync(join(directory, "package.json"), '{"type":"module"}');
  writeFileSync(
    join(directory, "tsconfig.json"),
    JSON.stringify({
      extends: join(root, "tsconfig.json"),
      compilerOptions: { rootDir: join(root, "src"), outDir: join(directory, "dist"), declaration: false },
      include: [],
      files: [join(root, "src/dashboard/index.ts")],
    }),
  );
  execFileSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", directory], { cwd: root });
  const main = join(directory, "main.js");
  writeFileSync(
    main,
    `import { runDashboard } from "./dist/dashboard/index.js";
const outcome = await runDashboard({ socketPath: process.argv[2], ...JSON.parse(process.argv[3] ?? "{}") });
process.stdout.write("dashboard ended with " + outcome + "\\n");
`,
  );
  return { main, remove: () => rmSync(directory, { recursive: true, force: true }) };
}

export interface TerminalSession {
  readonly pid: number;
  /** The lines on the screen, without trailing spaces. */
  lines(): string[];
  text(): string;
  /** Everything that was written, escape sequences included. */
  raw(): string;
  usesAlternateScreen(): boolean;
  isCursorHidden(): boolean;
  type(keys: string): void;
  resize(columns: number, rows: number): void;
  kill(signal: string): void;
  /** Resolves when the screen shows it; rejects with the screen after twenty seconds. */
  until(what: string | RegExp | ((text: string) => boolean)): Promise<string>;
  readonly exited: Promise<number>;
}

export interface TerminalOptions {
  readonly columns: number;
  readonly rows: number;
  readonly environment?: Readonly<Record<string, string>>;
  /** The program; Node where it is absent. */
  readonly file?: string;
}

const DEADLINE_MS = 20_000;

/** Runs a program in a pseudo-terminal and reads its screen as a person does. */
export function openTerminal(args: readonly string[], options: TerminalOptions): TerminalSession {
  const terminal = new xterm.Terminal({ cols: options.columns, rows: options.rows, allowProposedApi: true });
  const { NO_COLOR: _a, FORCE_COLOR: _b, CI: _c, ...inherited } = process.env;
  const child = spawn(options.file ?? process.execPath, [...args], {
    cols: options.columns,
    rows: options.rows,
    env: { ...inherited, TERM: "xterm-256color", TZ: "UTC", ...options.environment },
  });
  let raw = "";
  const waiting = new Set<() => void>();
  child.onData((data) => {
    raw += data;
    terminal.write(data, () => {
      for (const check of waiting) check();
    });
  });
  const exited = new Promise<number>((resolve) => {
    // As a shell has it: a death by signal is never 0.
    child.onExit(({ exitCode, signal }) => resolve(signal ? 128 + signal : exitCode));
  });

  function lines(): string[] {
    const { active } = terminal.buffer;
    return Array.from({ length: terminal.rows }, (_, row) => {
      return active.getLine(active.viewportY + row)?.translateToString(true, 0, terminal.cols) ?? "";
    });
  }
  const text = (): string => lines().join("\n");

  return {
    pid: child.pid,
    lines,
    text,
    raw: () => raw,
    usesAlternateScreen: () => terminal.buffer.active.type === "alternate",
    isCursorHidden: () => raw.lastIndexOf("\u001b[?25l") > raw.lastIndexOf("\u001b[?25h"),
    type: (keys) => child.write(keys),
    resize(columns, rows) {
      terminal.resize(columns, rows);
      child.resize(columns, rows);
    },
    kill: (signal) => child.kill(signal),
    until(what) {
      const holds =
        typeof what === "string"
          ? (shown: string) => shown.includes(what)
          : typeof what === "function"
            ? what
            : (shown: string) => what.test(shown);
      return new Promise((resolve, reject) => {
        const deadline = setTimeout(() => {
          waiting.delete(check);
          reject(new Error(`the screen never showed ${what}:\n${text()}`));
        }, DEADLINE_MS);
        function check(): void {
          const shown = text();
          if (!holds(shown)) return;
          clearTimeout(deadline);
          waiting.delete(check);
          resolve(shown);
        }
        waiting.add(check);
        check();
      });
    },
    exited,
  };
}
