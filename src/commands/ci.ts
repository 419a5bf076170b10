import { Flags } from "@oclif/core";
import { CodedError } from "../coded-error.js";
import { destination } from "../control-api/display-text.js";
import { AgentidCommand, EXIT } from "./base-command.js";

export default class Ci extends AgentidCommand {
  static override summary = "Run a command inside an ephemeral trust domain";
  static override description =
    `The exit code is the command's own; where that is 0, it is ${EXIT.denied} when a call was denied that no --expect-denied names. Nothing is left behind. Without agentid.yaml the trust domain is ci.local and nothing is registered.`;
  static override examples = [
    "<%= config.bin %> ci -- npm test",
    "<%= config.bin %> ci --expect-denied 'billing:payments/issue_refund' --report denials.xml -- ./e2e.sh",
  ];
  static override flags = {
    "expect-denied": Flags.string({
      multiple: true,
      summary: "a denial that may happen: [CALLER:]SERVICE[/TARGET], each with * as wildcard",
    }),
    report: Flags.string({ multiple: true, summary: "write a report: FILE.json, or FILE.xml for JUnit" }),
  };
  static override strict = false;
  static override usage = "ci [--expect-denied PATTERN]... [--report FILE]... -- CMD...";

  async run(): Promise<unknown> {
    // Split here: where the command has a `--` of its own, oclif would take that one for ours.
    const dashes = this.argv.indexOf("--");
    const command = dashes === -1 ? [] : this.argv.slice(dashes + 1);
    const { flags, argv } = await this.parse(Ci, dashes === -1 ? this.argv : this.argv.slice(0, dashes));
    if (argv.length > 0) {
      throw new CodedError("wrong-usage", `${String(argv[0])} stands before --`, {
        hint: `agentid ci -- ${argv.join(" ")}`,
      });
    }
    if (command.length === 0) {
      throw new CodedError("wrong-usage", "a command is missing", { hint: "agentid ci -- CMD…" });
    }
    const { runInEphemeralTrustDomain } = await import("../daemon/ephemeral-run.js");
    const report = await runInEphemeralTrustDomain({
      command,
      projectDirectory: flags.project,
      expectDenied: flags["expect-denied"] ?? [],
      reportFiles: flags.report ?? [],
      environment: process.env,
    });
    for (const denial of report.denials.filter(({ expected }) => !expected)) {
      this.logToStderr(
        `agentid: denied, and not expected: ${denial.caller} → ${destination(denial.service, denial.target)}: ${denial.reason} (decision ${denial.decision})`,
      );
    }
    for (const pattern of report.expectedButAbsent)
      this.logToStderr(`agentid: expected to be denied, but did not happen: ${pattern}`);
    process.exitCode = report.exitCode;
    return report;
  }
}
