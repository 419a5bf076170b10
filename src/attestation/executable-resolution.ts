import { execFile } from "node:child_process";
import { realpathSync } from "node:fs";
import { open } from "node:fs/promises";
import { basename, isAbsolute, resolve } from "node:path";
import { promisify } from "node:util";
import { CodedError } from "../coded-error.js";
import { findCommand } from "../platform/command-path.js";

/** A command cannot be resolved to what will run. */
class CommandError extends CodedError<"command-unresolvable"> {
  override readonly name = "CommandError";
}

export interface Command {
  readonly argv: readonly string[];
  /** Absolute. */
  readonly workingDirectory: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** What runs in the end when a command is executed. */
export interface FinalProgram {
  /** The executable image, without symbolic links: what the kernel will name. Asks a version manager's shim where there is one. Throws CommandError. */
  exePath(): Promise<string>;
  /** The command line as it will stand in /proc. */
  readonly argv: readonly string[];
  /** Scripts executed through their first line on the way, absolute, in order. */
  readonly scripts: readonly string[];
}

/** The kernel follows five; `env` in between makes it a little more. */
const MAX_INTERPRETERS = 8;
/** The kernel reads 256 bytes of a first line. */
const FIRST_LINE_BYTES = 256;
const ASK_TIMEOUT_MS = 10_000;

/** How to ask a runtime which executable it is, when what PATH names is a shim (pyenv, asdf, mise, volta, nodenv …). */
const RUNTIMES = [
  { name: /^python[\d.]*$/, image: /^python[\d.]*[a-z]*$/, ask: ["-c", "import sys; print(sys.executable)"] },
  { name: /^node(js)?$/, image: /^node(js)?$/, ask: ["-p", "process.execPath"] },
] as const;

/**
 * Follows a command to the executable that runs in the end: PATH, symbolic links, first lines of scripts (`#!`, also through `env`), and the shims of
 * version managers, which are asked. Throws CommandError or CommandPathError.
 */
export async function resolveCommand(command: Command): Promise<FinalProgram> {
  const [name = "", ...rest] = command.argv;
  const shim = await shimNamed(name, command);
  if (shim !== undefined) return { exePath: shim, argv: [name, ...rest], scripts: [] };
  return followInterpreters(name, rest, command);
}

async function followInterpreters(name: string, rest: readonly string[], command: Command): Promise<FinalProgram> {
  let program = findCommand(name, command.workingDirectory, command.env);
  let argv: readonly string[] = [name, ...rest];
  const scripts: string[] = [];
  for (let step = 0; step < MAX_INTERPRETERS; step += 1) {
    const line = await firstLine(program);
    if (line === undefined) return { exePath: async () => realpathSync(program), argv, scripts };
    scripts.push(program);
    // execve(2): the interpreter, its one optional argument, the script's path as it was executed, the remaining arguments.
    const executed = argv[0]?.includes("/") ? argv[0] : program;
    argv = [line.interpreter, ...line.argument, executed, ...argv.slice(1)];
    program = resolve(command.workingDirectory, line.interpreter);
    if (basename(line.interpreter) === "env") {
      const inner = afterEnv(argv);
      const shim = await shimNamed(inner[0] ?? "", command);
      if (shim !== undefined) return { exePath: shim, argv: inner, scripts };
      argv = inner;
      program = findCommand(inner[0] ?? "", command.workingDirectory, command.env);
    }
  }
  throw new CommandError("command-unresolvable", `${name} leads through more than ${MAX_INTERPRETERS} interpreters`);
}

/** How to ask for the image behind a shim; undefined when `name` is no runtime or PATH leads to the runtime itself. */
async function shimNamed(name: string, command: Command): Promise<(() => Promise<string>) | undefined> {
  const runtime = RUNTIMES.find((candidate) => candidate.name.test(basename(name)));
  if (runtime === undefined) return undefined;
  const program = findCommand(name, command.workingDirectory, command.env);
  const isImage = runtime.image.test(basename(realpathSync(program))) && (await firstLine(program)) === undefined;
  return isImage ? undefined : () => askShim(program, runtime.ask, command);
}

async function askShim(program: string, ask: readonly string[], command: Command): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(program, ask, {
      cwd: command.workingDirectory,
      env: { ...command.env },
      timeout: ASK_TIMEOUT_MS,
      encoding: "utf8",
    });
    const answer = stdout.trim();
    if (!isAbsolute(answer)) throw new Error(`it answered ${JSON.stringify(answer)}`);
    return realpathSync(answer);
  } catch (cause) {
    throw new CommandError("command-unresolvable", `${program} does not say which program it runs`, {
      hint: `Try it: ${program} ${ask.join(" ")}. Or name the runtime itself in \`launch\`.`,
      cause,
    });
  }
}

interface FirstLine {
  readonly interpreter: string;
  /** None or one: Linux passes everything after the interpreter as one argument. */
  readonly argument: readonly string[];
}

async function firstLine(path: string): Promise<FirstLine | undefined> {
  const file = await open(path, "r").catch(() => undefined); // an executable that may not be read is no script: the kernel would need to read it
  if (file === undefined) return undefined;
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(FIRST_LINE_BYTES), 0, FIRST_LINE_BYTES, 0);
    const text = buffer.toString("utf8", 0, bytesRead);
    if (!text.startsWith("#!")) return undefined;
    const line = (text.slice(2).split("\n")[0] ?? "").trim();
    const [, interpreter = "", argument = ""] = /^(\S+)\s*(.*)$/.exec(line) ?? [];
    return { interpreter, argument: argument === "" ? [] : [argument] };
  } finally {
    await file.close();
  }
}

/** What `env` executes of [env, argument, script, …]: `-S` splits its argument, settings of variables and other options are skipped. */
function afterEnv(argv: readonly string[]): readonly string[] {
  const words = argv
    .slice(1)
    .flatMap((word, index) => (index === 0 && /^-\w*S/.test(word) ? word.split(/\s+/).slice(1) : [word]));
  const start = words.findIndex((word) => !word.startsWith("-") && !word.includes("="));
  return start === -1 ? [] : words.slice(start);
}
