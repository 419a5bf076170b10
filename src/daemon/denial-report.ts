import { destination } from "../control-api/display-text.js";
import type { CallDecidedEvent } from "../control-api/events.js";
import { junitXml } from "../control-api/junit.js";

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

/** The report as JUnit XML: one case for the command and one for each denial. */
export function junitReport(report: EphemeralRunReport): string {
  const { command, commandExitCode, denials, trustDomain } = report;
  const cases = [
    {
      name: `command ${command.join(" ")}`,
      ...(commandExitCode !== 0 && { failure: `exit code ${commandExitCode}` }),
    },
    ...denials.map(({ caller, service, target, expected, reason, rule, decision }) => ({
      name: `denied: ${caller} → ${destination(service, target)}`,
      ...(!expected && { failure: `${reason} (rule ${rule}, decision ${decision})` }),
    })),
  ];
  return junitXml(
    `agentid ${trustDomain}`,
    cases.map((each) => ({ classname: "agentid", ...each })),
  );
}
