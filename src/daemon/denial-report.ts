import type { CallDecidedEvent } from "../control-api/events.js";

/** What `agentid ci` reports. */
export interface EphemeralRunReport {
  readonly trustDomain: string;
  readonly command: readonly string[];
  readonly commandExitCode: number;
  /** The command's own where it is not 0; else 3 when a denial was not expected; else 0. */
  readonly exitCode: number;
  readonly calls: number;
  readonly denials: readonly (CallDecidedEvent & { readonly expected: boolean })[];
  /** Patterns of `expectDenied` that no denial matched. */
  readonly expectedButAbsent: readonly string[];
}

/** The report as JUnit XML, which every CI shows: one case for the command and one for each denial. */
export function junitReport(report: EphemeralRunReport): string {
  const cases = [
    testCase(
      `command ${report.command.join(" ")}`,
      report.commandExitCode === 0 ? undefined : `exit code ${report.commandExitCode}`,
    ),
    ...report.denials.map((denial) =>
      testCase(
        `denied: ${denial.caller} → ${denial.service}/${denial.target}`,
        denial.expected ? undefined : `${denial.reason} (rule ${denial.rule}, decision ${denial.decision})`,
      ),
    ),
  ];
  const failures = cases.filter((text) => text.includes("<failure")).length;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites><testsuite name="agentid ${escapeXml(report.trustDomain)}" tests="${cases.length}" failures="${failures}">`,
    ...cases,
    "</testsuite></testsuites>",
    "",
  ].join("\n");
}

function testCase(name: string, failure: string | undefined): string {
  const attributes = `classname="agentid" name="${escapeXml(name)}"`;
  if (failure === undefined) return `  <testcase ${attributes}/>`;
  return `  <testcase ${attributes}><failure message="${escapeXml(failure)}"/></testcase>`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
};

function escapeXml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => ENTITIES[character] ?? "");
}
