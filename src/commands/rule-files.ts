import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { CodedError } from "../coded-error.js";
import { compareConfigs } from "../config/compare.js";
import type { Config } from "../config/config.js";
import { CONFIG_FILE_NAME, ENTITIES_FILE_NAME, parseConfig } from "../config/load.js";
import { escapedText } from "../policy/condition-values.js";
import { diffPolicySets, type PolicyDifference } from "../policy/policy-diff.js";
import { type PolicySet, policySetOf, readRuleFiles } from "../policy/policy-set.js";
import { problemLine } from "../policy/yaml-file.js";

/** A change of one file of the project that is not written yet. */
export interface FileChange {
  /** `policies/payments.yaml`. */
  readonly file: string;
  readonly path: string;
  readonly before: string;
  readonly after: string;
  /** What it changes, and whether it permits more. */
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
): Promise<FileChange> {
  const { policiesDirectory } = config;
  const path = join(dirname(policiesDirectory), file);
  if (relative(policiesDirectory, path).startsWith("..")) {
    throw new CodedError("policy-edit", `${file} is not in the policies folder`);
  }
  const before = textOf(path) ?? "";
  const after = edit(before);
  const { files } = await readRuleFiles(policiesDirectory);
  const others = files.filter((each) => each.file !== file);
  const all = [...others, { file, bytes: Buffer.from(after) }];
  const { set, problems } = policySetOf(all, policies.names, textOf(join(config.projectDirectory, ENTITIES_FILE_NAME)));
  if (set === undefined) {
    const errors = problems.filter(({ severity }) => severity === "error").map(problemLine);
    throw new CodedError("policy-invalid", errors.join("\n"));
  }
  return { file, path, before, after, difference: diffPolicySets(policies, set) };
}

/** The change that `edit` makes to `agentid.yaml`. Throws CodedError `config-invalid` where it would not load any more, `policy-edit` as above. */
export function configChangeOf(config: Config, edit: (text: string) => string): FileChange {
  const { projectDirectory } = config;
  const path = join(projectDirectory, CONFIG_FILE_NAME);
  const before = readFileSync(path, "utf8");
  const after = edit(before);
  const next = parseConfig(after, { projectDirectory, file: path, digest: "" });
  return { file: CONFIG_FILE_NAME, path, before, after, difference: compareConfigs(config, next) };
}

function textOf(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, "utf8") : undefined;
}

/**
 * Writes the change at once and whole: a reader of the folder sees the old file or the new one. Throws CodedError `policy-edit` where the file is not
 * the one any more that the change was shown of.
 */
export function writeChange({ file, path, before, after }: FileChange): void {
  if ((textOf(path) ?? "") !== before) {
    throw new CodedError("policy-edit", `${file} was changed meanwhile: nothing was written`, { hint: "do it again" });
  }
  mkdirSync(dirname(path), { recursive: true });
  // No rule file by its name, so that a reload in between does not read it.
  const temporary = join(dirname(path), `.${process.pid}.agentid-new`);
  writeFileSync(temporary, after, { flag: "wx" });
  const mode = statSync(path, { throwIfNoEntry: false })?.mode;
  if (mode !== undefined) chmodSync(temporary, mode & 0o777);
  renameSync(temporary, path);
}

/** The lines that differ, with a sign, and what of it widens. */
export function changeLines({ file, before, after, difference }: FileChange): readonly string[] {
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
