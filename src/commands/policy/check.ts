import { join } from "node:path";
import { CodedError } from "../../coded-error.js";
import { loadConfig } from "../../config/load.js";
import { policyNamesOf } from "../../policy/policy-names.js";
import { loadPolicySet } from "../../policy/policy-set.js";
import { AgentidCommand } from "../base-command.js";
import { projectDirectory } from "../project-directory.js";

export default class PolicyCheck extends AgentidCommand {
  static override summary = "Check agentid.yaml and the policy files without a running daemon";

  async run(): Promise<unknown> {
    const { flags } = await this.parse(PolicyCheck);
    const config = await loadConfig(join(projectDirectory(flags.project), "agentid.yaml"));
    const { set, problems } = await loadPolicySet(config.policiesDirectory, policyNamesOf(config));
    const errors = problems.filter(({ severity }) => severity === "error");
    for (const { severity, text } of problems) this.log(severity === "warning" ? `warning: ${text}` : text);
    if (errors.length > 0)
      throw new CodedError("policy-invalid", `${errors.length} errors in ${config.policiesDirectory}`);
    this.log(`${set.rules.length} rules in ${set.files} files, policy ${set.digest.slice(0, 8)}`);
    return { digest: set.digest, rules: set.rules.length, files: set.files, problems };
  }
}
