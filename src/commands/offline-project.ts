import { join } from "node:path";
import { CodedError } from "../coded-error.js";
import type { Config } from "../config/config.js";
import { CONFIG_FILE_NAME, ENTITIES_FILE_NAME, findProject, LOCK_FILE_NAME, loadConfig } from "../config/load.js";
import { readLock } from "../config/lock-file.js";
import { type LoadedEngines, loadEngines } from "../policy/engines/load-engines.js";
import { policyDigest } from "../policy/engines/policy-digest.js";
import { policyNamesOf } from "../policy/policy-names.js";
import { loadPolicySet, type PolicySet } from "../policy/policy-set.js";
import { problemLine } from "../policy/yaml-file.js";

/** The folder named by `--project`, else the nearest parent with agentid.yaml. Throws CodedError `no-project`. */
export function projectDirectory(named: string | undefined): string {
  const found = named ?? findProject(process.cwd());
  if (found === undefined) {
    throw new CodedError("no-project", "there is no agentid.yaml in this folder or above it", {
      hint: "agentid init writes one",
    });
  }
  return found;
}

/** What the commands that need no daemon work on. */
interface OfflineProject {
  readonly config: Config;
  readonly policies: PolicySet;
  readonly engines: LoadedEngines;
  /** Hex SHA-256 over all that decides. */
  readonly digest: string;
  readonly warnings: readonly string[];
}

/** Configuration, policies and engines. Throws CodedError `config-invalid`, `policy-invalid` with every problem. */
export async function offlineProject(named: string | undefined): Promise<OfflineProject> {
  const directory = projectDirectory(named);
  const config = await loadConfig(join(directory, CONFIG_FILE_NAME));
  const lock = await readLock(join(directory, LOCK_FILE_NAME));
  const entities = join(config.projectDirectory, ENTITIES_FILE_NAME);
  const { set, problems } = await loadPolicySet(config.policiesDirectory, policyNamesOf(config, lock), entities);
  const loaded =
    set &&
    (await loadEngines(config.policy, set, {
      projectDirectory: config.projectDirectory,
      cacheDirectory: join(config.projectDirectory, ".agentid", "rego"),
      environment: process.env,
    }));
  const all = [...problems, ...(loaded?.problems ?? [])];
  const engines = loaded?.loaded;
  if (set === undefined || engines === undefined) {
    const errors = all.filter(({ severity }) => severity === "error");
    throw new CodedError("policy-invalid", errors.map(problemLine).join("\n"));
  }
  const digest = policyDigest(set.digest, engines.engines, engines.rules.items);
  return { config, policies: set, engines, digest, warnings: all.map(problemLine) };
}
