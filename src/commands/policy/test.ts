import { join } from "node:path";
import { CodedError } from "../../coded-error.js";
import { loadConfig } from "../../config/load.js";
import { runPolicyTests } from "../../policy/fixtures.js";
import { policyNamesOf } from "../../policy/policy-names.js";
import { loadPolicySet } from "../../policy/policy-set.js";
import { AgentidCommand, EXIT } from "../base-command.js";
import { projectDirectory } from "../project-directory.js";

export default class PolicyTest extends AgentidCommand {
  static override summary = "Run the fixture files (policies/*.test.yaml) against the policy files";

  async run(): Promise<unknown> {
    const { flags } = await this.parse(PolicyTest);
    const config = await loadConfig(join(projectDirectory(flags.project), "agentid.yaml"));
    const { set, problems } = await loadPolicySet(config.policiesDirectory, policyNamesOf(config));
    const errors = problems.filter(({ severity }) => severity === "error");
    if (errors.length > 0) throw new CodedError("policy-invalid", errors.map(({ text }) => text).join("\n"));
    const report = await runPolicyTests(config.policiesDirectory, set);
    for (const test of report.tests) {
      this.log(`${test.passed ? "✓" : "✗"} ${test.name}`);
      for (const line of test.lines) this.log(`  ${line}`);
    }
    this.log(`${report.passed} passed, ${report.failed} failed`);
    if (report.failed > 0) process.exitCode = EXIT.failed;
    return report;
  }
}
