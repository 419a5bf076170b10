import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { codeOf, messageOf } from "../coded-error.js";
import { ENTITIES_FILE_NAME } from "../config/load.js";
import { readProjectFile } from "../config/project-file.js";
import { type Entities, NO_ENTITIES, readEntities } from "./entities.js";
import type { PolicyNames } from "./policy-names.js";
import type { Rule } from "./rule.js";
import { readRuleFile } from "./rule-file.js";
import type { PolicyProblem, PolicyProblemCode } from "./yaml-file.js";

/** All rules that hold together, in the order of their names, so that the order of files and of rules in them changes nothing. */
export interface PolicySet {
  readonly rules: readonly Rule[];
  readonly entities: Entities;
  /** Hex SHA-256 over the names and bytes of the rule files and of `entities.yaml`. */
  readonly digest: string;
  /** How many rule files. */
  readonly files: number;
  readonly names: PolicyNames;
}

export interface LoadedPolicySet {
  /** Undefined when any problem is an error: such a set is never applied, the last good one stays. */
  readonly set: PolicySet | undefined;
  readonly problems: readonly PolicyProblem[];
}

const MAX_FILE_BYTES = 1024 * 1024;
const MAX_ENTITIES_BYTES = 16 * 1024 * 1024;

/**
 * Loads every `*.yaml` and `*.yml` below `directory`, except `*.test.yaml` (fixtures) and names that begin with a dot.
 * Subfolders count: a deny that lies one folder deeper must not be lost. A missing or empty folder is a set that denies everything, with a
 * warning. Never throws for what is in the folder: all that is wrong is in `problems`.
 */
export async function loadPolicySet(
  directory: string,
  names: PolicyNames,
  entitiesFile?: string,
): Promise<LoadedPolicySet> {
  const { files, problems: unreadable } = await readRuleFiles(directory);
  const problems = [...unreadable];
  if (files.length === 0 && problems.length === 0) {
    problems.push(fileProblem("policy-empty", basename(directory), "no rule files: everything is denied", "warning"));
  }
  const { set, problems: found } = policySetOf(files, names, await entitiesTextIn(entitiesFile, problems));
  const all = inOrder([...problems, ...found]);
  return { set: all.some((problem) => problem.severity === "error") ? undefined : set, problems: all };
}

/** The rule files below `directory`, and what of it cannot be read. */
export async function readRuleFiles(
  directory: string,
): Promise<{ readonly files: readonly RuleFileText[]; readonly problems: readonly PolicyProblem[] }> {
  const shown = basename(directory);
  const problems: PolicyProblem[] = [];
  const texts: RuleFileText[] = [];
  for (const relative of await ruleFilesIn(directory, problems)) {
    const file = `${shown}/${relative}`;
    try {
      const bytes = await readFile(join(directory, relative));
      if (bytes.length > MAX_FILE_BYTES) {
        problems.push(fileProblem("policy-file-too-large", file, `larger than ${MAX_FILE_BYTES} bytes`));
      } else {
        texts.push({ file, bytes });
      }
    } catch (thrown) {
      problems.push(fileProblem("policy-file-unreadable", file, messageOf(thrown)));
    }
  }
  return { files: texts, problems };
}

export interface RuleFileText {
  /** As decisions show it: `policies/payments.yaml`. */
  readonly file: string;
  readonly bytes: Uint8Array;
}

async function entitiesTextIn(file: string | undefined, problems: PolicyProblem[]): Promise<string | undefined> {
  if (file === undefined) return undefined;
  try {
    return (await readProjectFile(file, ENTITIES_FILE_NAME, MAX_ENTITIES_BYTES))?.text;
  } catch (thrown) {
    problems.push(fileProblem("policy-file-unreadable", ENTITIES_FILE_NAME, messageOf(thrown)));
    return undefined;
  }
}

/**
 * The set that these files make, with the text of `entities.yaml` where there is one; `set` is undefined when any of them has an error.
 */
export function policySetOf(
  files: readonly RuleFileText[],
  names: PolicyNames,
  entitiesText?: string,
): LoadedPolicySet {
  const sorted = [...files].sort((a, b) => (a.file < b.file ? -1 : 1));
  const digest = createHash("sha256");
  const problems: PolicyProblem[] = [];
  const { entities, problems: wrong } =
    entitiesText === undefined
      ? { entities: NO_ENTITIES, problems: [] }
      : readEntities(ENTITIES_FILE_NAME, entitiesText);
  problems.push(...wrong);
  const rules = new Map<string, Rule>();
  for (const { file, bytes } of sorted) {
    // Lengths go in too, so that moving bytes from one file to the next changes the digest.
    digest.update(`${Buffer.byteLength(file)}:${file}${bytes.length}:`).update(bytes);
    const read = readText(file, bytes, names, entities);
    problems.push(...read.problems);
    for (const rule of read.rules) {
      const twin = rules.get(rule.name);
      if (twin !== undefined) {
        const line = Number(rule.at.slice(rule.at.lastIndexOf(":") + 1));
        const message = `rule ${rule.name} is already at ${twin.at}: decisions name rules, so names are unique`;
        problems.push({ ...fileProblem("policy-duplicate-name", file, message), line, column: 1 });
      }
      rules.set(rule.name, rule);
    }
  }
  if (problems.some((problem) => problem.severity === "error")) {
    return { set: undefined, problems: inOrder(problems) };
  }
  if (entitiesText !== undefined) {
    digest.update(`${ENTITIES_FILE_NAME}\0${Buffer.byteLength(entitiesText)}:`).update(entitiesText);
  }
  const ordered = [...rules.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return {
    set: { rules: ordered, entities, digest: digest.digest("hex"), files: sorted.length, names },
    problems: inOrder(problems),
  };
}

/** The set without rules: denies everything. */
export function emptyPolicySet(names: PolicyNames): PolicySet {
  return { rules: [], entities: NO_ENTITIES, digest: createHash("sha256").digest("hex"), files: 0, names };
}

function inOrder(problems: readonly PolicyProblem[]): readonly PolicyProblem[] {
  return problems.toSorted((a, b) =>
    a.file === b.file ? a.line - b.line || a.column - b.column : a.file < b.file ? -1 : 1,
  );
}

function readText(
  file: string,
  bytes: Uint8Array,
  names: PolicyNames,
  entities: Entities,
): ReturnType<typeof readRuleFile> {
  try {
    return readRuleFile(file, new TextDecoder("utf-8", { fatal: true }).decode(bytes), names, entities);
  } catch (thrown) {
    return { rules: [], problems: [fileProblem("policy-yaml", file, messageOf(thrown))] };
  }
}

async function ruleFilesIn(directory: string, problems: PolicyProblem[]): Promise<readonly string[]> {
  try {
    const names = await readdir(directory, { recursive: true });
    return names.filter(isRuleFile).sort();
  } catch (thrown) {
    if (codeOf(thrown) !== "ENOENT") {
      problems.push(fileProblem("policy-file-unreadable", basename(directory), messageOf(thrown)));
    }
    return [];
  }
}

/** Of a name below the policies folder: does it hold rules? */
export function isRuleFile(name: string): boolean {
  return /\.ya?ml$/.test(name) && !isFixtureFile(name) && !name.split("/").some((part) => part.startsWith("."));
}

/** `payments.test.yaml`: fixtures for `agentid policy test`, not rules. */
export function isFixtureFile(name: string): boolean {
  return /\.test\.ya?ml$/.test(name);
}

function fileProblem(
  code: PolicyProblemCode,
  file: string,
  message: string,
  severity: PolicyProblem["severity"] = "error",
): PolicyProblem {
  return { severity, code, file, line: 0, column: 0, message, hint: undefined };
}
