import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { preparePythonEnvironment } from "./python-environment.js";

const execute = promisify(execFile);
const here = import.meta.dirname;
/** Builds and downloads stay here; git ignores it. */
const cache = join(here, "../../.cache/interop");

/** A program built on somebody else's SPIFFE library. */
export interface ForeignWorkload {
  /** What the kernel will name as its executable. */
  readonly exePath: string;
  /** The executable's digest, where several programs share it. */
  readonly exeSha256?: string;
  /** How it is started. */
  readonly command: readonly string[];
}

/** What is missing on this machine, for people; or the workload. */
export type Prepared = { readonly workload: ForeignWorkload } | { readonly missing: string };

/** The go-spiffe program, as an executable of its own called `name`. */
export async function prepareGo(name: string): Promise<Prepared> {
  if (!(await runs("go", ["version"]))) return { missing: "go is not installed" };
  mkdirSync(cache, { recursive: true });
  const built = join(cache, "workload");
  await execute("go", ["build", "-o", built, "."], { cwd: join(here, "go") });
  const exePath = join(cache, name);
  copyFileSync(built, exePath);
  return { workload: { exePath: realpathSync(exePath), command: [exePath] } };
}

/** The py-spiffe program in a virtual environment of its own, made on demand. */
export async function preparePython(): Promise<Prepared> {
  const environment = await preparePythonEnvironment("python", join(here, "python/requirements.txt"));
  if ("missing" in environment) return environment;
  const { python } = environment;
  const { stdout } = await execute(python, ["-c", "import os; print(os.path.realpath('/proc/self/exe'))"]);
  return { workload: { exePath: stdout.trim(), command: [python, join(here, "python/workload.py")] } };
}

/** Pinned, so that a build asks for what the last one had. */
const COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/** The java-spiffe program. Java programs share one executable, so its identity is the machine's Java by path and digest. */
export async function prepareJava(): Promise<Prepared> {
  if (!(await runs("mvn", ["--version"]))) return { missing: "mvn is not installed" };
  if (!(await runs("javac", ["--version"]))) return { missing: "javac is not installed" };
  const project = join(here, "java");
  const source = join(project, "src/main/java/Workload.java");
  const libraries = join(cache, "java/lib");
  const classes = join(cache, "java/classes");
  const classPath = `${classes}:${libraries}/*`;
  await onceFor([join(project, "pom.xml")], libraries, async () => {
    rmSync(libraries, { recursive: true, force: true });
    const flags = ["--batch-mode", "--quiet", COPY_DEPENDENCIES, `-DoutputDirectory=${libraries}`];
    await execute("mvn", flags, { cwd: project });
  });
  await onceFor([source, join(project, "pom.xml")], classes, async () => {
    await execute("javac", [
      "-encoding",
      "UTF-8",
      "-Xlint:all",
      "-Werror",
      "-cp",
      join(libraries, "*"),
      "-d",
      classes,
      source,
    ]);
  });
  return { workload: await javaProgram(classPath, "Workload") };
}

/** A program on Java's own HTTP client. */
export async function prepareJavaClient(): Promise<Prepared> {
  if (!(await runs("javac", ["--version"]))) return { missing: "javac is not installed" };
  const source = join(here, "clients/Client.java");
  const classes = join(cache, "java-client");
  await onceFor([source], classes, async () => {
    await execute("javac", ["-encoding", "UTF-8", "-Xlint:all", "-Werror", "-d", classes, source]);
  });
  return { workload: await javaProgram(classes, "Client") };
}

async function javaProgram(classPath: string, main: string): Promise<ForeignWorkload> {
  const { stderr } = await execute("java", ["-XshowSettings:properties", "-version"]);
  const home = /java\.home = (.*)/.exec(stderr)?.[1] ?? "";
  const exePath = realpathSync(join(home, "bin/java"));
  const exeSha256 = createHash("sha256").update(readFileSync(exePath)).digest("hex");
  // A program this short starts sooner without the second compiler.
  return { exePath, exeSha256, command: [exePath, "-XX:TieredStopAtLevel=1", "-cp", classPath, main] };
}

/** The program on the Rust crates `spiffe` and `spiffe-rustls`. */
export async function prepareRust(): Promise<Prepared> {
  if (!(await runs("cargo", ["--version"]))) return { missing: "cargo is not installed" };
  const target = join(cache, "rust");
  const flags = ["build", "--locked", "--quiet", "--target-dir", target];
  await execute("cargo", flags, { cwd: join(here, "rust") });
  const exePath = realpathSync(join(target, "debug/workload"));
  return { workload: { exePath, command: [exePath] } };
}

/** Makes `result`, a folder, unless it was made from the same `sources`. */
async function onceFor(sources: readonly string[], result: string, make: () => Promise<void>): Promise<void> {
  const digest = createHash("sha256");
  for (const source of sources) digest.update(readFileSync(source));
  const wanted = digest.digest("hex");
  const stamp = join(result, "made-from");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  await make();
  mkdirSync(result, { recursive: true });
  writeFileSync(stamp, wanted);
}

async function runs(file: string, args: readonly string[]): Promise<boolean> {
  return execute(file, args).then(
    () => true,
    () => false,
  );
}

/** A running workload: its lines of JSON one by one. */
export interface RunningWorkload {
  /** The next line it says. Rejects, with what it wrote to standard error, if it ends first. */
  next(): Promise<Record<string, unknown>>;
  /** Closes its standard input, which ends the subcommands that go on; resolves when it has exited, with its code. */
  stop(): Promise<number | null>;
}

export function startWorkload(
  { command }: ForeignWorkload,
  socketPath: string,
  ...args: readonly string[]
): RunningWorkload {
  const [file = "", ...first] = command;
  const env = { ...process.env, SPIFFE_ENDPOINT_SOCKET: `unix://${socketPath}` };
  const child = spawn(file, [...first, ...args], { env, stdio: ["pipe", "pipe", "pipe"] });
  const exited = exitOf(child);
  let errors = "";
  child.stderr.on("data", (data) => {
    errors += String(data);
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async next() {
      const { value, done } = await lines.next();
      if (done === true) throw new Error(`${file} ${args.join(" ")} ended with ${await exited}: ${errors}`);
      return JSON.parse(value);
    },
    stop() {
      child.stdin.end();
      return exited;
    },
  };
}

function exitOf(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => child.once("close", (code) => resolve(code)));
}
