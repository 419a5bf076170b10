import { Args, Flags } from "@oclif/core";
import { displayText } from "../control-api/display-text.js";
import type { AttestationReport } from "../control-api/routes.js";
import { AgentidCommand } from "./base-command.js";
import { runningDaemon } from "./running-daemon.js";

export default class Attest extends AgentidCommand {
  static override summary = "Show what the kernel says of a process, and which identities follow";
  static override description =
    "With --explain: every fact with its source, its strength and who could forge it, every identity with all that it asks for, and which one thing is missing where one is. With --json the answer always has all of it.";
  static override args = { pid: Args.integer({ required: true, description: "process id", min: 1 }) };
  static override flags = {
    explain: Flags.boolean({ summary: "say of every fact where it comes from and who could forge it" }),
  };
  static override examples = ["<%= config.bin %> attest $$", "<%= config.bin %> attest $$ --explain"];

  async run(): Promise<AttestationReport> {
    const { args, flags } = await this.parse(Attest);
    const report = await runningDaemon(flags.project).call("attest", { pid: args.pid });
    this.log(flags.explain ? explainedText(report) : attestationText(report));
    return report;
  }
}

/** Facts that a machine may well not have are missing quietly: --explain lists them. */
const ALWAYS_SHOWN = new Set(["user", "group", "exePath", "exeSha256", "execGeneration"]);

function attestationText(report: AttestationReport): string {
  const missing = report.missing.filter(({ name }) => ALWAYS_SHOWN.has(name));
  const width = Math.max(...[...report.facts, ...missing].map(({ name }) => name.length));
  const lines = [`process ${report.pid}, by the kernel's word`];
  for (const { name, value, source } of report.facts) {
    lines.push(`  ${name.padEnd(width)}  ${displayText(value, 120)}   (${source})`);
  }
  for (const { name, reason } of missing) lines.push(`  ${name.padEnd(width)}  not known: ${displayText(reason, 160)}`);
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

function explainedText(report: AttestationReport): string {
  return [
    `process ${report.pid}`,
    report.weakness === undefined
      ? "evidence: kernel. It was held while it was read, and is checked again before every answer."
      : `evidence: weak. ${displayText(report.weakness, 200)}.`,
    "",
    "facts",
    ...report.facts.flatMap(({ name, value, source, strength, forgedBy }) => [
      `  ${name}  ${displayText(value, 120)}`,
      `      source    ${source}`,
      `      strength  ${strength}`,
      `      forged by ${forgedBy}`,
    ]),
    "",
    "not known",
    ...report.missing.map(({ name, reason }) => `  ${name}  ${displayText(reason, 160)}`),
    "",
    ...explainedIdentities(report),
  ].join("\n");
}

function explainedIdentities({ identities, missed }: AttestationReport): readonly string[] {
  const lines = [identities.length === 0 ? "identities that follow: none" : "identities that follow"];
  for (const { spiffeId, evidence, restsOn } of identities) {
    lines.push(`  ✓ ${spiffeId}   evidence: ${evidence}`, `      rests on  ${list(restsOn)}`);
  }
  const groups = [
    ["identities that nearly follow: one thing is missing", missed.filter(({ nearly }) => nearly)],
    ["identities that do not follow", missed.filter(({ nearly }) => !nearly)],
  ] as const;
  for (const [title, members] of groups) {
    if (members.length > 0) lines.push(title);
    for (const { name, failures, holds } of members) {
      lines.push(`  ✗ ${name}`);
      for (const { what, detail } of failures) {
        lines.push(`      missing   ${displayText(what, 160)}`, `                ${displayText(detail, 200)}`);
      }
      if (holds.length > 0) lines.push(`      holds     ${list(holds)}`);
    }
  }
  return lines;
}

function list(selectors: readonly string[]): string {
  return selectors.map((selector) => displayText(selector, 160)).join(", ");
}
