import { displayText } from "./display-text.js";

export interface JunitCase {
  readonly name: string;
  readonly classname: string;
  readonly failure?: string | undefined;
  readonly skipped?: string | undefined;
  /** Where it stands, or what it rests on. */
  readonly source?: string;
}

/** JUnit XML with one suite, which every CI shows. Text from outside is made safe to show (D23). */
export function junitXml(suite: string, cases: readonly JunitCase[]): string {
  const failures = cases.filter(({ failure }) => failure !== undefined).length;
  const skipped = cases.filter(({ skipped }) => skipped !== undefined).length;
  const attributes = `tests="${cases.length}" failures="${failures}" skipped="${skipped}"`;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites ${attributes}>`,
    `  <testsuite name="${escaped(suite)}" ${attributes}>`,
    ...cases.map(testCase),
    "  </testsuite>",
    "</testsuites>",
    "",
  ].join("\n");
}

function testCase({ name, classname, failure, skipped, source }: JunitCase): string {
  const attributes = `name="${escaped(name)}" classname="${escaped(classname)}"`;
  const inside = [
    source === undefined ? "" : `<properties><property name="source" value="${escaped(source)}"/></properties>`,
    failure === undefined ? "" : `<failure message="${escaped(failure)}"/>`,
    skipped === undefined ? "" : `<skipped message="${escaped(skipped)}"/>`,
  ].join("");
  return inside === "" ? `    <testcase ${attributes}/>` : `    <testcase ${attributes}>${inside}</testcase>`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
};
const LONGEST_TEXT = 4_000;

function escaped(text: string): string {
  return displayText(text, LONGEST_TEXT).replaceAll(/[&<>"']/g, (character) => ENTITIES[character] ?? "");
}
