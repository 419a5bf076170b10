import { displayText } from "../../control-api/display-text.js";
import { runPolicyTests } from "../../policy/fixtures.js";
import { problemLine } from "../../policy/yaml-file.js";
import { AgentidCommand, EXIT } from "../base-command.js";
import { offlineProject } from "../offline-project.js";

export default class PolicyTest extends AgentidCommand {
  static override summary = "Run the fixture files (policies/*.test.yaml) against the policy files";

  async run(): Promise<unknown> {
    const { flags } = await this.parse(PolicyTest);
    const { config, policies, engines } = await offlineProject(flags.project);
    const report = await runPolicyTests(config.policiesDirectory, policies, { engines });
    for (const { name, at, expectations } of report.tests) {
      this.log(`${expectations.every(({ passed }) => passed) ? "✓" : "✗"} ${name}  (${at})`);
      for (const { call, passed, difference, decision } of expectations) {
        const outcome = `${decision.allowed ? "ALLOW" : "DENY"} by ${decision.rule}`;
        this.log(
          `  ${passed ? "✓" : "✗"} ${displayText(call, 120)}  ${passed ? outcome : displayText(difference, 200)}`,
        );
      }
    }
    for (const problem of report.problems) this.log(problemLine(problem));
    for (const rule of report.untested) this.log(`no test decides by rule ${rule}`);
    this.log(`${report.passed} passed, ${report.failed} failed`);
    if (report.failed > 0 || report.problems.some(({ severity }) => severity === "error"))
      process.exitCode = EXIT.failed;
    return report;
  }
}
