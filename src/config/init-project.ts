import { randomBytes } from "node:crypto";
import { lstat, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { CodedError, codeOf } from "../coded-error.js";
import { CONFIG_FILE_NAME } from "./load.js";
import { suggestion } from "./nearest.js";
import { checkTrustDomain } from "./values.js";

/** What `agentid init --template` knows, the first is the default. */
export const templateNames = ["minimal", "mcp-server"] as const;

export interface InitOptions {
  /** Standard: made from the folder's name, `shop` → `shop.local`. */
  readonly trustDomain?: string;
  /** True replaces files that are there and differ. */
  readonly overwrite: boolean;
}

export interface InitResult {
  /** Paths relative to the project, in the order of writing; empty if there were conflicts. */
  readonly written: readonly string[];
  /** Files that are there, differ, and were not to be overwritten. Nothing was written then. */
  readonly conflicts: readonly string[];
}

/** The same from `src/config` and from `dist/config`, in a clone and in an installed package. */
const TEMPLATES = fileURLToPath(new URL("../../templates/", import.meta.url));
const SCHEMA_FILE_NAME = "agentid.schema.json";

/**
 * Writes a template into `directory`, which is made if it is missing: all of it, or nothing where a file would be overwritten without
 * `overwrite`. Throws CodedError `template-unknown` or `trust-domain-invalid`.
 */
export async function initProject(directory: string, template: string, options: InitOptions): Promise<InitResult> {
  const project = resolve(directory);
  const trustDomain = options.trustDomain ?? trustDomainOf(project);
  const wrong = checkTrustDomain(trustDomain);
  if (wrong !== undefined) throw new CodedError("trust-domain-invalid", wrong);
  const files = await filesOf(template, trustDomain);

  const states = await Promise.all(files.map(({ path, bytes }) => stateOf(join(project, path), bytes)));
  const withState = (...wanted: readonly FileState[]) =>
    files.filter((_, index) => wanted.includes(states[index] ?? "missing"));
  const conflicts = withState("different");
  if (conflicts.length > 0 && !options.overwrite) {
    return { written: [], conflicts: conflicts.map((file) => file.path) };
  }
  const toWrite = withState("missing", "different");
  for (const file of toWrite) await writeWhole(join(project, file.path), file.bytes, options.overwrite);
  return { written: toWrite.map((file) => file.path), conflicts: [] };
}

/** `shop` → `shop.local`, `My Shop!` → `my-shop.local`; a folder without a usable name gives `project.local`. */
export function trustDomainOf(projectDirectory: string): string {
  const name = basename(projectDirectory)
    .toLowerCase()
    .replaceAll(/[^a-z0-9._-]+/g, "-")
    .replaceAll(/^[-.]+|[-.]+$/g, "")
    .slice(0, 63);
  return `${name === "" ? "project" : name}.local`;
}

interface TemplateFile {
  /** Relative to the project. */
  readonly path: string;
  readonly bytes: Buffer;
}

async function filesOf(template: string, trustDomain: string): Promise<readonly TemplateFile[]> {
  if (!templateNames.some((name) => name === template)) {
    throw new CodedError(
      "template-unknown",
      `no template ${JSON.stringify(template)}${suggestion(template, templateNames)}`,
    );
  }
  const folder = join(TEMPLATES, template);
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort(configFirst);
  const files = await Promise.all(
    paths.map(async (path) => {
      const bytes = await readFile(join(folder, path));
      return { path, bytes: path === CONFIG_FILE_NAME ? withTrustDomain(bytes, trustDomain) : bytes };
    }),
  );
  return [...files, { path: SCHEMA_FILE_NAME, bytes: await readFile(join(TEMPLATES, SCHEMA_FILE_NAME)) }];
}

function configFirst(one: string, other: string): number {
  const rank = (path: string) => (path === CONFIG_FILE_NAME ? `0` : `1${path}`);
  return rank(one) < rank(other) ? -1 : 1;
}

/** The template's own trust domain, in its line and in the comments that explain it, gives way to the project's. */
function withTrustDomain(bytes: Buffer, trustDomain: string): Buffer {
  const text = bytes.toString();
  const own = /^trustDomain: (\S+)$/m.exec(text)?.[1];
  return own === undefined ? bytes : Buffer.from(text.replaceAll(own, trustDomain));
}

type FileState = "missing" | "same" | "different";

async function stateOf(file: string, bytes: Buffer): Promise<FileState> {
  try {
    // The link itself: one that leads nowhere is there all the same.
    await lstat(file);
  } catch (thrown) {
    if (codeOf(thrown) === "ENOENT") return "missing";
    throw thrown;
  }
  // A folder in the place of a file, or a file that may not be read, counts as different.
  const same = await readFile(file).then(
    (found) => found.equals(bytes),
    () => false,
  );
  return same ? "same" : "different";
}

/** Writes the whole file or nothing. What appeared since it was looked for is replaced only with `overwrite`; a link is replaced, not followed. */
async function writeWhole(file: string, bytes: Buffer, overwrite: boolean): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  if (!overwrite) {
    const handle = await open(file, "wx");
    await handle.writeFile(bytes).finally(() => handle.close());
    return;
  }
  const temporary = `${file}.${randomBytes(6).toString("hex")}`;
  try {
    const handle = await open(temporary, "wx");
    await handle.writeFile(bytes).finally(() => handle.close());
    await rename(temporary, file);
  } catch (thrown) {
    await rm(temporary, { force: true });
    throw thrown;
  }
}
