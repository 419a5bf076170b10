import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { basename, dirname, relative } from "node:path";
import { CodedError } from "../coded-error.js";
import type { Config } from "../config/config.js";
import { policyNamesOf } from "../policy/policy-names.js";
import { isRuleFile, loadPolicySet, type PolicySet, policySetOf, type RuleFileText } from "../policy/policy-set.js";
import { problemLine } from "../policy/yaml-file.js";

/**
 * The policy set that `source` names: a folder, or the policies folder of the project at a revision of git. Judged by the names of today's
 * `agentid.yaml`. Throws CodedError `policy-invalid`, `bad-request` where it is neither.
 */
export async function policySetAt(source: string, config: Config): Promise<PolicySet> {
  const names = policyNamesOf(config);
  const { set, problems } = isFolder(source)
    ? await loadPolicySet(source, names)
    : policySetOf(filesAtRevision(source, config.policiesDirectory), names);
  if (set !== undefined) return set;
  const errors = problems.filter(({ severity }) => severity === "error").map(problemLine);
  throw new CodedError("policy-invalid", `${source}:\n${errors.join("\n")}`);
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function filesAtRevision(revision: string, policiesDirectory: string): readonly RuleFileText[] {
  const folder = basename(policiesDirectory);
  const cwd = dirname(policiesDirectory);
  // The end of options: a revision that begins with a dash is no option of git's.
  const listed = git(cwd, revision, ["ls-tree", "-r", "-z", "--name-only", "--end-of-options", revision, `${folder}/`]);
  const files = listed
    .toString()
    .split("\0")
    .filter((file) => file !== "" && isRuleFile(relative(folder, file)));
  return files.map((file) => ({ file, bytes: git(cwd, revision, ["cat-file", "blob", `${revision}:./${file}`]) }));
}

function git(cwd: string, revision: string, args: readonly string[]): Buffer {
  const { status, stdout, error } = spawnSync("git", args, { cwd, maxBuffer: 64 * 1024 * 1024 });
  if (status === 0) return stdout;
  const hint = error === undefined ? "agentid policy diff OLD [NEW]" : `git: ${error.message}`;
  throw new CodedError("bad-request", `${revision} is neither a folder nor a revision of git`, { hint });
}
