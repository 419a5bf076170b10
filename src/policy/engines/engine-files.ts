import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import { basename, join, relative, sep } from "node:path";
import { CodedError, codeOf, messageOf } from "../../coded-error.js";
import type { PolicyProblem, PolicyProblemCode } from "../yaml-file.js";

export interface EngineFile {
  /** Relative to the project: `policies/cedar/refunds.cedar`. */
  readonly shown: string;
  readonly bytes: Buffer;
}

/** Enough for large bundles; a bound, so that a wrong path cannot take the daemon's memory. */
const MAX_BYTES = 32 * 1024 * 1024;
const MAX_FILES = 5_000;

/** One file. Throws CodedError `policy-file-unreadable` or `policy-file-too-large`. */
export async function readEngineFile(path: string, projectDirectory: string): Promise<EngineFile> {
  const shown = shownPath(path, projectDirectory);
  try {
    // Opening a named pipe in blocking mode would wait until somebody writes to it.
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = await handle.stat();
      if (!stats.isFile()) throw new CodedError("policy-file-unreadable", "not a regular file");
      if (stats.size > MAX_BYTES) throw new CodedError("policy-file-too-large", `larger than ${MAX_BYTES} bytes`);
      return { shown, bytes: await handle.readFile() };
    } finally {
      await handle.close();
    }
  } catch (thrown) {
    const message = codeOf(thrown) === "ENOENT" ? "no such file" : messageOf(thrown);
    const code = codeOf(thrown) === "policy-file-too-large" ? "policy-file-too-large" : "policy-file-unreadable";
    throw new EngineFileError(code, shown, message);
  }
}

/** The file, or every file below the folder whose name ends as said, in the order of their names; names that begin with a dot are left out. */
export async function readEngineFiles(
  path: string,
  projectDirectory: string,
  endings: readonly string[],
): Promise<readonly EngineFile[]> {
  const shown = shownPath(path, projectDirectory);
  const found = await stat(path).catch((thrown: unknown) => {
    const message = codeOf(thrown) === "ENOENT" ? "no such file or folder" : messageOf(thrown);
    throw new EngineFileError("policy-file-unreadable", shown, message);
  });
  if (!found.isDirectory()) return [await readEngineFile(path, projectDirectory)];
  const all = (await readdir(path, { recursive: true, withFileTypes: true }))
    .map((entry) => ({ entry, name: relative(path, join(entry.parentPath, entry.name)) }))
    .filter(({ name }) => !name.split(sep).some((step) => step.startsWith(".")));
  // What is behind it would be left out, and with it whatever forbids there.
  for (const { entry, name } of all) {
    if (!entry.isSymbolicLink()) continue;
    const target = await stat(join(path, name)).catch(() => undefined);
    if (target?.isDirectory() === true)
      throw new EngineFileError("policy-file-unreadable", join(shown, name), "a link to a folder is not followed");
  }
  const names = all
    .map(({ name }) => name)
    .filter((name) => endings.some((ending) => name.endsWith(ending)))
    .sort();
  if (names.length === 0)
    throw new EngineFileError("policy-file-unreadable", shown, `holds no ${endings.join(" or ")}`);
  if (names.length > MAX_FILES)
    throw new EngineFileError("policy-file-too-large", shown, `more than ${MAX_FILES} files`);
  const files: EngineFile[] = [];
  for (const name of names) files.push(await readEngineFile(join(path, name), projectDirectory));
  return files;
}

export function textOf({ shown, bytes }: EngineFile): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new EngineFileError("policy-file-unreadable", shown, "not UTF-8 text");
  }
}

/** Something is wrong with one file of an engine. */
export class EngineFileError extends CodedError<PolicyProblemCode> {
  override readonly name = "EngineFileError";
  readonly file: string;

  constructor(code: PolicyProblemCode, file: string, message: string, hint?: string) {
    super(code, message, hint === undefined ? {} : { hint });
    this.file = file;
  }
}

/** What an engine's load threw, as a problem of the project. */
export function problemOf(thrown: unknown, engine: string): PolicyProblem {
  if (thrown instanceof EngineFileError) return fileProblem(thrown.code, thrown.file, thrown.message, thrown.hint);
  const hint = thrown instanceof CodedError ? thrown.hint : undefined;
  return fileProblem("policy-engine", `engine ${engine}`, messageOf(thrown), hint);
}

export function fileProblem(
  code: PolicyProblemCode,
  file: string,
  message: string,
  hint?: string,
  severity: PolicyProblem["severity"] = "error",
): PolicyProblem {
  return { severity, code, file, line: 0, column: 0, message, hint };
}

/** Relative to the project, also where it lies outside: two files never have one name. */
export function shownPath(path: string, projectDirectory: string): string {
  const steps = relative(projectDirectory, path);
  return steps === "" ? basename(path) : steps;
}

/** Over settings and files, with lengths, so that moving bytes from one to the next changes it. */
export function digestOf(settings: readonly unknown[], files: readonly EngineFile[]): string {
  const digest = createHash("sha256");
  const add = (part: string | Buffer) => digest.update(`${Buffer.byteLength(part)}:`).update(part);
  add(JSON.stringify(settings));
  for (const { shown, bytes } of files) {
    add(shown);
    add(bytes);
  }
  return digest.digest("hex");
}
