import { type Document, isMap, isScalar, LineCounter, parseDocument } from "yaml";
import type { z } from "zod";
import { knownKeys, valueAt, wrongValue } from "../config/schema-problems.js";
import { nearestHint } from "./policy-names.js";

/** Something wrong, or worth a look, in a file of the policies folder. */
export interface PolicyProblem {
  /** A set with an error is not applied; the last good one stays. */
  readonly severity: "error" | "warning";
  readonly code: PolicyProblemCode;
  /** `policies/payments.yaml`. */
  readonly file: string;
  /** From 1; 0 where the problem is the file itself. */
  readonly line: number;
  readonly column: number;
  readonly message: string;
  /** What to do next: the nearest valid choice. */
  readonly hint: string | undefined;
}

export type PolicyProblemCode =
  | "policy-file-unreadable"
  | "policy-file-too-large"
  | "policy-yaml"
  | "policy-shape"
  | "policy-unknown-key"
  | "policy-unknown-name"
  | "policy-pattern"
  | "policy-method"
  | "policy-condition"
  | "policy-rule"
  | "policy-by-host"
  | "policy-duplicate-name"
  | "policy-empty"
  | "policy-engine"
  | "policy-cedar"
  | "policy-rego";

export type PathInFile = readonly (string | number)[];

/** A parsed YAML file that can say where each of its parts stands. */
export class YamlFile {
  readonly file: string;
  readonly problems: PolicyProblem[] = [];
  readonly #document: Document.Parsed;
  readonly #lines = new LineCounter();
  readonly #text: string;

  /** YAML 1.2 core schema only; duplicate keys, unknown tags and more than one document are problems. */
  constructor(file: string, text: string) {
    this.file = file;
    this.#text = text;
    this.#document = parseDocument(text, {
      version: "1.2",
      schema: "core",
      merge: false,
      uniqueKeys: true,
      prettyErrors: false,
      lineCounter: this.#lines,
    });
    for (const problem of [...this.#document.errors, ...this.#document.warnings]) {
      this.#report("error", "policy-yaml", problem.pos[0], problem.message.split("\n", 1)[0] ?? problem.message);
    }
  }

  /** The file's content if it has the shape of `schema`, else undefined and the problems are in `problems`. */
  parse<Schema extends z.ZodType>(schema: Schema): z.infer<Schema> | undefined {
    if (this.problems.length > 0) return undefined;
    let content: unknown;
    try {
      content = this.#document.toJS({ maxAliasCount: 20 });
    } catch (thrown) {
      this.#report("error", "policy-yaml", 0, thrown instanceof Error ? thrown.message : String(thrown));
      return undefined;
    }
    const parsed = schema.safeParse(content);
    if (parsed.success) return parsed.data;
    for (const issue of parsed.error.issues) this.#reportIssue(issue, [], { schema, content });
    return undefined;
  }

  problem(code: PolicyProblemCode, at: PathInFile, message: string, hint?: string, offset = 0): void {
    this.#report("error", code, this.#offsetOf(at) + offset, message, hint);
  }

  warning(code: PolicyProblemCode, at: PathInFile, message: string, hint?: string): void {
    this.#report("warning", code, this.#offsetOf(at), message, hint);
  }

  /** Line of the part at `path`, from 1. */
  lineOf(path: PathInFile): number {
    return this.#lines.linePos(this.#offsetOf(path)).line;
  }

  /** Offset from the start of the scalar at `path` in the file to the character at `position` of its value; 0 where folding or escapes make it unknowable. */
  offsetInScalar(path: PathInFile, position: number): number {
    const node = this.#document.getIn(path, true);
    if (!isScalar(node) || typeof node.value !== "string" || node.range == null) return 0;
    const start = this.#text.indexOf(node.value, node.range[0]);
    return start === -1 || start > node.range[1] ? 0 : start - node.range[0] + position;
  }

  #offsetOf(path: PathInFile): number {
    for (let length = path.length; length >= 0; length -= 1) {
      const node: unknown = length === 0 ? this.#document.contents : this.#document.getIn(path.slice(0, length), true);
      if (typeof node === "object" && node !== null && "range" in node && Array.isArray(node.range)) {
        return Number(node.range[0]);
      }
    }
    return 0;
  }

  #keyOffset(path: PathInFile, key: string): number {
    const map = path.length === 0 ? this.#document.contents : this.#document.getIn(path, true);
    if (!isMap(map)) return this.#offsetOf(path);
    const pair = map.items.find((item) => isScalar(item.key) && String(item.key.value) === key);
    return isScalar(pair?.key) ? (pair.key.range?.[0] ?? 0) : this.#offsetOf(path);
  }

  #reportIssue(issue: z.core.$ZodIssue, base: PathInFile, read: { schema: z.ZodType; content: unknown }): void {
    const path = [...base, ...issue.path.map((part) => (typeof part === "symbol" ? String(part) : part))];
    const found = valueAt(read.content, path);
    if (issue.code === "invalid_union") {
      // Its problems are those of the one form that was written: a list, text or a mapping.
      const ofThisForm = issue.errors.find((issues) => !issues.some((one) => isOfAnotherForm(one, found)));
      if (ofThisForm !== undefined) {
        for (const one of ofThisForm) this.#reportIssue(one, path, read);
        return;
      }
    }
    if (issue.code === "unrecognized_keys") {
      const known = knownKeys(read.schema, path, read.content);
      for (const key of issue.keys) {
        const hint = nearestHint(key, known);
        this.#report("error", "policy-unknown-key", this.#keyOffset(path, key), `unknown key ${key}`, hint);
      }
      return;
    }
    const where = path.length > 0 ? `${path.join(".")}: ` : found === null ? "" : "the file: ";
    const { words } = wrongValue(issue, found, path.length === 0);
    const near = issue.code === "invalid_value" && typeof found === "string";
    const hint = near ? nearestHint(found, issue.values.map(String)) : undefined;
    this.#report("error", "policy-shape", this.#offsetOf(path), `${where}${words}`, hint);
  }

  #report(
    severity: PolicyProblem["severity"],
    code: PolicyProblemCode,
    offset: number,
    message: string,
    hint?: string,
  ): void {
    const { line, col } = this.#lines.linePos(offset);
    this.problems.push({ severity, code, file: this.file, line, column: col, message, hint });
  }
}

/** A text that is none of those there may be is a misspelt one of them, not another form. */
function isOfAnotherForm({ code, path, ...issue }: z.core.$ZodIssue, found: unknown): boolean {
  if (path.length > 0) return false;
  if (code === "invalid_value") return typeof found !== "string";
  if (code !== "invalid_union") return code === "invalid_type";
  const forms = (issue as z.core.$ZodIssueInvalidUnion).errors ?? [];
  return forms.every((issues) => issues.some((one) => isOfAnotherForm(one, found)));
}

/** `policies/payments.yaml:11:5: unknown key tool (did you mean tools?)`. */
export function problemLine(problem: PolicyProblem): string {
  const place = problem.line === 0 ? problem.file : `${problem.file}:${problem.line}:${problem.column}`;
  return `${place}: ${problem.message}${problem.hint === undefined ? "" : ` (${problem.hint})`}`;
}
