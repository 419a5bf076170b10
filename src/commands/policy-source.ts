import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { CodedError } from "../coded-error.js";
import type { Config } from "../config/config.js";
import { ENTITIES_FILE_NAME } from "../config/load.js";
import type { PolicyNames } from "../policy/policy-names.js";
import { isRuleFile, loadPolicySet, type PolicySet, policySetOf, type RuleFileText } from "../policy/policy-set.js";
import { problemLine } from "../policy/yaml-file.js";

/**
 * The policy set that `source` names: a folder, or the policies folder of the project at a revision of git. Judged by `names`; a
 * folder by today's `entities.yaml`, a revision by its own. Throws CodedError `policy-invalid`, `bad-request` where it is neither.
 */
export async function policySetAt(source: string, config: Config, names: PolicyNames): Promise<PolicySet> {
  const { policiesDirectory, projectDirectory } = config;
  const { set, problems } = isFolder(source)
    ? await loadPolicySet(source, names, join(projectDirectory, ENTITIES_FILE_NAME))
    : policySetOf(filesAtRevision(source, policiesDirectory), names, entitiesAtRevision(source, projectDirectory));
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

function entitiesAtRevision(revision: string, projectDirectory: string): string | undefined {
  const args = ["ls-tree", "--name-only", "--end-of-options", revision, ENTITIES_FILE_NAME];
  if (git(projectDirectory, revision, args).length === 0) return undefined;
  return git(projectDirectory, revision, ["cat-file", "blob", `${revision}:./${ENTITIES_FILE_NAME}`]).toString();
}

function git(cwd: string, revision: string, args: readonly string[]): Buffer {
  const { status, stdout, error } = spawnSync("git", args, { cwd, maxBuffer: 64 * 1024 * 1024 });
  if (status === 0) return stdout;
  const hint = error === undefined ? "agentid policy diff OLD [NEW]" : `git: ${error.message}`;
  throw new CodedError("bad-request", `${revision} is neither a folder nor a revision of git`, { hint });
}
