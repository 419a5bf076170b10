import { displayText } from "../control-api/display-text.js";
import { junitXml } from "../control-api/junit.js";
import type { Level } from "./check.js";
import type { CheckResult } from "./suite.js";

export type Totals = Readonly<
  Record<Level, { readonly passed: number; readonly failed: number; readonly skipped: number }>
>;

/** What a run found, for programs. */
export interface ConformanceReport {
  readonly address: string;
  /** No statement of level M or I was found not to hold. */
  readonly conformant: boolean;
  readonly totals: Totals;
  readonly results: readonly CheckResult[];
}

const LEVELS: readonly Level[] = ["M", "S", "I"];
const MARKS = { pass: "✓", fail: "✗", skip: "–" } as const;
const LEVEL_NAMES = { M: "MUST", S: "SHOULD", I: "clients insist" } as const;
/** Several findings of one check in one line; the whole text is in the JSON. */
const LONGEST_REASON = 400;

export function conformanceReport(address: string, results: readonly CheckResult[]): ConformanceReport {
  const totalsOf = (level: Level) => {
    const count = (result: CheckResult["result"]) =>
      results.filter((one) => one.level === level && one.result === result).length;
    return { passed: count("pass"), failed: count("fail"), skipped: count("skip") };
  };
  const totals = { M: totalsOf("M"), S: totalsOf("S"), I: totalsOf("I") };
  return { address, conformant: totals.M.failed === 0 && totals.I.failed === 0, totals, results };
}

/** A line for each check, the reason of a failure or skip below it, then a line for each level. */
export function conformanceTable({ results, totals }: ConformanceReport): string {
  const lines = results.map(({ id, level, result, sentence, reason }) => {
    const line = `${id.padEnd(5)}  ${level}  ${MARKS[result]}  ${sentence}`;
    return reason === "" ? line : `${line}\n             ${displayText(reason, LONGEST_REASON)}`;
  });
  const summary = LEVELS.map((level) => {
    const { passed, failed, skipped } = totals[level];
    const name = `${level} (${LEVEL_NAMES[level]})`.padEnd(20);
    return `${name}${passed} passed, ${failed} failed, ${skipped} skipped`;
  });
  return [...lines, "", ...summary].join("\n");
}

/** JUnit XML, a test case for each check. */
export function conformanceJunit({ address, results }: ConformanceReport): string {
  const cases = results.map(({ id, level, sentence, source, result, reason }) => ({
    name: `${id} ${sentence}`,
    classname: `workload-api.${level}`,
    source,
    ...(result === "fail" && { failure: reason }),
    ...(result === "skip" && { skipped: reason }),
  }));
  return junitXml(`SPIFFE Workload API conformance of ${address}`, cases);
}
