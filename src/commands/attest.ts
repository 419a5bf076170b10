import { Args } from "@oclif/core";
import { displayText } from "../control-api/display-text.js";
import type { AttestationReport } from "../control-api/routes.js";
import { AgentidCommand } from "./base-command.js";
import { runningDaemon } from "./running-daemon.js";

export default class Attest extends AgentidCommand {
  static override summary = "Show what the kernel says of a process, and which identities follow";
  static override args = { pid: Args.integer({ required: true, description: "process id", min: 1 }) };
  static override examples = ["<%= config.bin %> attest $$"];

  async run(): Promise<AttestationReport> {
    const { args, flags } = await this.parse(Attest);
    const report = await runningDaemon(flags.project).call("attest", { pid: args.pid });
    this.log(attestationText(report));
    return report;
  }
}

function attestationText(report: AttestationReport): string {
  const width = Math.max(
    ...report.facts.map(({ name }) => name.length),
    ...report.missing.map(({ name }) => name.length),
  );
  const lines = [`process ${report.pid}, by the kernel's word`];
  for (const { name, value, source } of report.facts) {
    lines.push(`  ${name.padEnd(width)}  ${displayText(value, 120)}   (${source})`);
  }
  for (const { name, reason } of report.missing)
    lines.push(`  ${name.padEnd(width)}  not known: ${displayText(reason, 160)}`);
  lines.push("selectors");
  for (const selector of report.selectors) lines.push(`  ${displayText(selector, 160)}`);
  lines.push(report.identities.length === 0 ? "identities that follow: none" : "identities that follow");
  for (const { spiffeId, evidence } of report.identities) lines.push(`  ✓ ${spiffeId}   (evidence: ${evidence})`);
  if (report.missed.length > 0) lines.push("identities that do not");
  for (const { name, failed, detail } of report.missed) {
    lines.push(`  ✗ ${name}   ${failed}`, `      ${displayText(detail, 200)}`);
  }
  return lines.join("\n");
}
