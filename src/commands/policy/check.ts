import { unpinnedServices } from "../../policy/pinned-tools.js";
import { ruleFindings } from "../../policy/rule-findings.js";
import { AgentidCommand } from "../base-command.js";
import { offlineProject } from "../offline-project.js";

export default class PolicyCheck extends AgentidCommand {
  static override summary = "Check agentid.yaml and the policy files without a running daemon";
  static override description =
    "Syntax, names, the cost of conditions; then rules that cannot be reached or say what others say already, as far as literal fields and comparisons decide it.";

  async run(): Promise<unknown> {
    const { flags } = await this.parse(PolicyCheck);
    const { policies, engines, digest, warnings } = await offlineProject(flags.project);
    for (const warning of warnings) this.log(`warning: ${warning}`);
    const { findings, all } = ruleFindings(policies);
    for (const { at, rule, kind, detail } of findings) {
      this.log(`warning: ${at}: ${rule} ${kind.replace("-", " ")}: ${detail}`);
    }
    const unpinned = unpinnedServices(policies);
    for (const service of unpinned) {
      this.log(`warning: no tool of ${service} is pinned yet: names and arguments of its tools are not checked`);
      this.log(`         agentid mcp pin ${service}`);
    }
    if (!all) this.log("warning: too many rules to compare them with each other");
    const names = engines.engines.map(({ name }) => name);
    const beside = names.length === 0 ? "" : `, engines ${names.join(", ")}`;
    this.log(`${policies.rules.length} rules in ${policies.files} files${beside}, policy ${digest.slice(0, 8)}`);
    return {
      digest,
      rules: policies.rules.length,
      files: policies.files,
      engines: names,
      warnings,
      findings,
      unpinned,
    };
  }
}
