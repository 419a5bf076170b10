import { writeFileSync } from "node:fs";
import { Flags } from "@oclif/core";
import { displayText } from "../../control-api/display-text.js";
import { createDecisionPoint } from "../../policy/decision-point.js";
import { opened } from "../../policy/engines/load-engines.js";
import { type PolicyTestReport, policyTestJunit, runPolicyTests } from "../../policy/fixtures.js";
import { problemLine } from "../../policy/yaml-file.js";
import { AgentidCommand, EXIT } from "../base-command.js";
import { offlineProject } from "../offline-project.js";

export default class PolicyTest extends AgentidCommand {
  static override summary = "Run the fixture files (policies/*.test.yaml) against the policy files";
  static override description =
    "Needs no running daemon. Each test has a clock that stands, so that a run gives the same answer every time.";
  static override examples = [
    "<%= config.bin %> <%= command.id %>",
    "<%= config.bin %> <%= command.id %> --report policies.xml",
  ];
  static override flags = {
    report: Flags.string({
      multiple: true,
      summary: "write a report: FILE.json, or FILE.xml for JUnit",
      helpValue: "FILE",
    }),
    failures: Flags.boolean({ summary: "show only what failed" }),
  };

  async run(): Promise<PolicyTestReport> {
    const { flags } = await this.parse(PolicyTest);
    const { config, policies, engines } = await offlineProject(flags.project);
    const report = await runPolicyTests(config.policiesDirectory, policies, (clock) =>
      createDecisionPoint(policies, { clock, random: (size) => new Uint8Array(size), ...opened(engines, clock) }),
    );
    for (const line of treeOf(report, flags.failures)) this.log(line);
    for (const problem of report.problems) this.log(problemLine(problem));
    if (!flags.failures) for (const rule of report.untested) this.log(`no test decides by rule ${rule}`);
    const wrong = report.problems.filter(({ severity }) => severity === "error").length;
    const beside =
      wrong === 0 ? "" : `, ${wrong} ${wrong === 1 ? "problem" : "problems"} above: not every test was run`;
    this.log(`${report.passed} passed, ${report.failed} failed${beside}`);
    for (const file of flags.report ?? []) {
      writeFileSync(file, file.endsWith(".xml") ? policyTestJunit(report) : `${JSON.stringify(report, null, 2)}\n`);
    }
    if (report.failed > 0 || wrong > 0) process.exitCode = EXIT.failed;
    return report;
  }
}

function treeOf({ tests }: PolicyTestReport, onlyFailures: boolean): readonly string[] {
  return tests.flatMap(({ name, at, expectations }) => {
    const passed = expectations.every((each) => each.passed);
    if (passed && onlyFailures) return [];
    const shown = expectations.filter((each) => !onlyFailures || !each.passed);
    return [
      `${passed ? "✓" : "✗"} ${displayText(name, 120)}  (${at})`,
      ...shown.map(({ call, passed: held, difference, decision }, index) => {
        const branch = index === shown.length - 1 ? "└" : "├";
        const outcome = held
          ? `${decision.allowed ? "ALLOW" : "DENY"} by ${decision.rule}`
          : displayText(difference, 200);
        return `  ${branch} ${held ? "✓" : "✗"} ${displayText(call, 120)}  ${outcome}`;
      }),
    ];
  });
}
