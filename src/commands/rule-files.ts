import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { CodedError } from "../coded-error.js";
import type { Config } from "../config/config.js";
import { escapedText } from "../policy/condition-values.js";
import { diffPolicySets, type PolicyDifference } from "../policy/policy-diff.js";
import { policyNamesOf } from "../policy/policy-names.js";
import { type PolicySet, policySetOf, readRuleFiles } from "../policy/policy-set.js";
import { problemLine } from "../policy/yaml-file.js";

/** A change of one rule file that is not written yet. */
export interface RuleFileChange {
  /** `policies/payments.yaml`. */
  readonly file: string;
  readonly path: string;
  readonly before: string;
  readonly after: string;
  /** What it changes in the rules, and whether it permits more. */
  readonly difference: PolicyDifference;
}

/**
 * The change that `edit` makes to `file` (as decisions name it), judged together with all other files. Throws CodedError `policy-invalid` where
 * the set would not load any more, `policy-edit` where the file cannot be changed in place.
 */
export async function changeOf(
  config: Config,
  policies: PolicySet,
  file: string,
  edit: (text: string) => string,
): Promise<RuleFileChange> {
  const { policiesDirectory } = config;
  const path = join(dirname(policiesDirectory), file);
  if (relative(policiesDirectory, path).startsWith("..")) {
    throw new CodedError("policy-edit", `${file} is not in the policies folder`);
  }
  const before = textAt(path);
  const after = edit(before);
  const { files } = await readRuleFiles(policiesDirectory);
  const others = files.filter((each) => each.file !== file);
  const { set, problems } = policySetOf([...others, { file, bytes: Buffer.from(after) }], policyNamesOf(config));
  if (set === undefined) {
    const errors = problems.filter(({ severity }) => severity === "error").map(problemLine);
    throw new CodedError("policy-invalid", errors.join("\n"));
  }
  return { file, path, before, after, difference: diffPolicySets(policies, set) };
}

function textAt(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/**
 * Writes the change at once and whole: a reader of the folder sees the old file or the new one. Throws CodedError `policy-edit` where the file is not
 * the one any more that the change was shown of.
 */
export function writeChange({ file, path, before, after }: RuleFileChange): void {
  if (textAt(path) !== before) {
    throw new CodedError("policy-edit", `${file} was changed meanwhile: nothing was written`, { hint: "do it again" });
  }
  mkdirSync(dirname(path), { recursive: true });
  // No rule file by its name, so that a reload in between does not read it.
  const temporary = join(dirname(path), `.${process.pid}.agentid-new`);
  writeFileSync(temporary, after, { flag: "wx" });
  renameSync(temporary, path);
}

/** The lines that differ, with a sign, and what of it widens. */
export function changeLines({ file, before, after, difference }: RuleFileChange): readonly string[] {
  const old = linesOf(before);
  const next = linesOf(after);
  let head = 0;
  while (head < old.length && head < next.length && old[head] === next[head]) head += 1;
  let tail = 0;
  while (tail < old.length - head && tail < next.length - head && old.at(-1 - tail) === next.at(-1 - tail)) tail += 1;
  return [
    `${file}:${head + 1}`,
    ...old.slice(head, old.length - tail).map((line) => `- ${escapedText(line)}`),
    ...next.slice(head, next.length - tail).map((line) => `+ ${escapedText(line)}`),
    ...(difference.widened ? ["WIDENS"] : []),
    ...difference.changes.map((line) => `  ${line}`),
  ];
}

function linesOf(text: string): readonly string[] {
  return text === "" ? [] : text.replace(/\n$/, "").split("\n");
}
