import { join } from "node:path";
import { CodedError } from "../coded-error.js";
import type { Config } from "../config/config.js";
import { CONFIG_FILE_NAME, ENTITIES_FILE_NAME, findProject, loadConfig } from "../config/load.js";
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

/** Configuration and policies for the commands that need no daemon. Throws CodedError `config-invalid`, `policy-invalid` with every problem. */
export async function offlineProject(
  named: string | undefined,
): Promise<{ config: Config; policies: PolicySet; warnings: readonly string[] }> {
  const config = await loadConfig(join(projectDirectory(named), CONFIG_FILE_NAME));
  const entities = join(config.projectDirectory, ENTITIES_FILE_NAME);
  const { set, problems } = await loadPolicySet(config.policiesDirectory, policyNamesOf(config), entities);
  if (set === undefined) {
    const errors = problems.filter(({ severity }) => severity === "error");
    throw new CodedError("policy-invalid", errors.map(problemLine).join("\n"));
  }
  return { config, policies: set, warnings: problems.map(problemLine) };
}
