import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { Config } from "./config.js";
import { ConfigError } from "./config-error.js";
import { crossChecks } from "./cross-checks.js";
import { normalise } from "./normalise.js";
import { readProjectFile } from "./project-file.js";
import { configFile } from "./schema.js";
import { checkAgainst } from "./schema-problems.js";
import { parseYaml } from "./yaml-source.js";

export const CONFIG_FILE_NAME = "agentid.yaml";
export const LOCK_FILE_NAME = "agentid.lock";
/** Users, records and groups that policies speak of. */
export const ENTITIES_FILE_NAME = "entities.yaml";

/** Room for tens of thousands of identities; enough of a bound that a wrong file cannot take the daemon's memory. */
const MAX_BYTES = 4 * 1024 * 1024;

/** The nearest folder that holds `agentid.yaml`: `from` itself or a parent (D22). Absolute, or undefined. */
export function findProject(from: string): string | undefined {
  for (let directory = resolve(from); ; directory = dirname(directory)) {
    if (existsSync(join(directory, CONFIG_FILE_NAME))) return directory;
    if (dirname(directory) === directory) return undefined;
  }
}

/** Loads `agentid.yaml`. Throws ConfigError `config-unreadable`, `config-untrusted`, or `config-invalid` with every problem of the file. */
export async function loadConfig(file: string): Promise<Config> {
  const path = resolve(file);
  const label = basename(path);
  const read = await readProjectFile(path, label, MAX_BYTES);
  if (read === undefined) {
    throw new ConfigError(
      "config-unreadable",
      [{ file: path, line: 0, column: 0, path: "", message: "no such file" }],
      {
        hint: "agentid init writes one",
      },
    );
  }
  return parseConfig(read.text, { projectDirectory: dirname(path), file: path, digest: read.digest });
}

/** The configuration that `text` means as the `agentid.yaml` of `origin`. Throws ConfigError `config-invalid`. */
export function parseConfig(
  text: string,
  origin: { readonly projectDirectory: string; readonly file: string; readonly digest: string },
): Config {
  const source = parseYaml(text, basename(origin.file));
  if (source.syntaxProblems.length > 0) throw new ConfigError("config-invalid", source.syntaxProblems);
  const checked = checkAgainst(configFile, source);
  const problems = [...checked.problems, ...crossChecks(source)].sort(
    (one, other) => one.line - other.line || one.column - other.column,
  );
  if (checked.value === undefined || problems.length > 0) throw new ConfigError("config-invalid", problems);
  return normalise(checked.value, origin, source.keys(["identities"]));
}

/** What `agentid ci` runs with where there is no `agentid.yaml`: trust domain `ci.local`, nothing registered, nothing kept. */
export function builtInConfig(directory: string): Config {
  return normalise(
    { trustDomain: "ci.local", keys: "memory", reload: "auto" },
    {
      projectDirectory: resolve(directory),
      file: undefined,
      digest: createHash("sha256").update("").digest("hex"),
    },
    [],
  );
}
