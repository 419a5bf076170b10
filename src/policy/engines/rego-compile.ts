import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, sep } from "node:path";
import { promisify } from "node:util";
import { CodedError } from "../../coded-error.js";
import { findCommand } from "../../platform/command-path.js";
import { digestOf, type EngineFile, EngineFileError } from "./engine-files.js";

const execute = promisify(execFile);
const COMPILE_MILLIS = 120_000;

export interface CompileOptions {
  readonly entrypoint: string;
  /** What has been compiled is kept here; undefined: nowhere. */
  readonly cacheDirectory: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/**
 * The bundle that the user's own `opa` makes of these files, or that it made of the very same before.
 * Throws CodedError `opa-missing`, `opa-failed`, and EngineFileError with the line for what is wrong in a file.
 */
export async function compileRego(files: readonly EngineFile[], options: CompileOptions): Promise<Buffer> {
  const key = digestOf(["opa build -t wasm", options.entrypoint], files);
  const kept = await keptFile(options.cacheDirectory, key);
  const known = kept === undefined ? undefined : await readFile(kept).catch(() => undefined);
  if (known !== undefined) return known;
  const opa = findOpa(options.environment);
  // What was read is what is compiled, whatever is saved meanwhile.
  const folder = await mkdtemp(join(tmpdir(), "agentid-rego-"));
  try {
    for (const file of files) {
      const path = join(folder, "in", placeOf(file));
      await mkdir(dirname(path), { recursive: true });
      // Were two files written to one place, the second would take what the first forbids.
      await writeFile(path, file.bytes, { flag: "wx" });
    }
    const out = join(folder, "bundle.tar.gz");
    const paths = files.map((file) => join("in", placeOf(file)));
    const { PATH, HOME } = options.environment;
    try {
      await execute(opa, ["build", "-t", "wasm", "-e", options.entrypoint, "-o", out, ...paths], {
        cwd: folder,
        env: { PATH, HOME },
        timeout: COMPILE_MILLIS,
      });
    } catch (thrown) {
      throw compileError(thrown, files);
    }
    const bundle = await readFile(out);
    if (kept !== undefined) await keep(kept, bundle);
    return bundle;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function findOpa(environment: CompileOptions["environment"]): string {
  try {
    return findCommand("opa", process.cwd(), environment);
  } catch (cause) {
    throw new CodedError("opa-missing", "to compile Rego, opa must be on the PATH", {
      hint: "install it (https://www.openpolicyagent.org), or give the bundle that opa build -t wasm makes: bundle: policies/finance.tar.gz",
      cause,
    });
  }
}

/** Where a file lies for opa: those from outside of the project beside those in it. */
function placeOf({ shown }: EngineFile): string {
  return shown
    .split(sep)
    .map((step) => (step === ".." ? "_outside" : step))
    .join(sep);
}

/** The first place that opa names, in a file as the project has it. */
function compileError(thrown: unknown, files: readonly EngineFile[]): Error {
  const { stdout = "", stderr = "" } = thrown as { readonly stdout?: string; readonly stderr?: string };
  // What is wrong with a policy is said on the standard output.
  const text = `${stdout}${stderr}`.trim() || String(thrown);
  const place = /(?:^|\s)(?:\S*\/)?in\/(\S+?):(\d+):\s*(.*)/.exec(text);
  const file = files.find((each) => placeOf(each) === place?.[1]);
  if (place === null || file === undefined) return new CodedError("opa-failed", `opa build: ${text.slice(0, 2_000)}`);
  return new EngineFileError("policy-rego", `${file.shown}:${place[2]}`, place[3] ?? text);
}

/** Only below the project's own folder of state, where nobody else writes, and only once that is there. */
async function keptFile(cacheDirectory: string | undefined, key: string): Promise<string | undefined> {
  if (cacheDirectory === undefined) return undefined;
  const there = await stat(dirname(cacheDirectory)).catch(() => undefined);
  if (there === undefined || there.uid !== process.geteuid?.() || (there.mode & 0o022) !== 0) return undefined;
  return join(cacheDirectory, `${key}.tar.gz`);
}

async function keep(path: string, bundle: Buffer): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const half = `${path}.${randomBytes(6).toString("hex")}`;
  await writeFile(half, bundle, { mode: 0o600 });
  await rename(half, path);
}
