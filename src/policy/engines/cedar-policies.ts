import type { PolicyJson } from "@cedar-policy/cedar-wasm/nodejs";
import type { PolicyProblem } from "../yaml-file.js";
import type { CedarLibrary } from "./cedar-library.js";
import { type CedarSchema, uidText } from "./cedar-schema.js";
import { type EngineFile, fileProblem, textOf } from "./engine-files.js";
import { positionIn } from "./text-places.js";

export interface CedarPolicy {
  /** Its `@id`, else `refunds.cedar:3`. Unique. */
  readonly id: string;
  /** `policies/cedar/refunds.cedar:3`. */
  readonly at: string;
  readonly text: string;
  readonly permits: boolean;
  readonly unconditional: boolean;
  /** `@message`: for the caller, where it forbids. */
  readonly message: string | undefined;
  readonly scope: Pick<PolicyJson, "principal" | "action" | "resource">;
}

interface Piece {
  readonly text: string;
  /** Bytes from the start of the file. */
  readonly start: number;
}

/**
 * Splits a file at the semicolons that end policies: not those in strings and comments. Each policy is parsed by itself, so that every problem
 * and every decision has its line; Cedar's own parser has already accepted the whole.
 */
function policiesIn(text: string): readonly Piece[] {
  const pieces: Piece[] = [];
  let start: number | undefined;
  let bytes = 0;
  let startBytes = 0;
  for (let at = 0; at < text.length; ) {
    const skipped = /^(?:\s+|\/\/[^\n]*)/.exec(text.slice(at, at + 4096))?.[0];
    const token = skipped ?? (text[at] === '"' ? stringAt(text, at) : String.fromCodePoint(text.codePointAt(at) ?? 0));
    if (skipped === undefined && start === undefined) {
      start = at;
      startBytes = bytes;
    }
    at += token.length;
    bytes += Buffer.byteLength(token);
    if (token === ";" && start !== undefined) {
      pieces.push({ text: text.slice(start, at), start: startBytes });
      start = undefined;
    }
  }
  return start === undefined ? pieces : [...pieces, { text: text.slice(start), start: startBytes }];
}

function stringAt(text: string, start: number): string {
  let end = start + 1;
  while (end < text.length && text[end] !== '"') end += text[end] === "\\" ? 2 : 1;
  return text.slice(start, end + 1);
}

/** Reads, and with a schema validates, the policies of all files; with an error among the problems they must not be used. */
export function readCedarPolicies(
  cedar: CedarLibrary,
  files: readonly EngineFile[],
  schema: CedarSchema | undefined,
): { readonly policies: readonly CedarPolicy[]; readonly problems: readonly PolicyProblem[] } {
  const problems: PolicyProblem[] = [];
  const policies = new Map<string, CedarPolicy>();
  for (const file of files) {
    const text = textOf(file);
    const pieces = policiesIn(text);
    for (const piece of pieces) {
      const wrong = (message: string, offset = 0, hint?: string | null, severity?: PolicyProblem["severity"]): void => {
        const place = positionIn(file.bytes, piece.start + offset);
        const problem = fileProblem("policy-cedar", file.shown, message, hint ?? undefined, severity);
        problems.push({ ...problem, ...place });
      };
      const parsed = cedar.policyToJson(piece.text);
      if (parsed.type === "failure") {
        for (const { message, help, sourceLocations } of parsed.errors) {
          wrong(message.replace("failed to parse policy from string: ", ""), sourceLocations?.[0]?.start, help);
        }
        continue;
      }
      const { line } = positionIn(file.bytes, piece.start);
      const policy = policyOf(piece.text, parsed.json, `${file.shown}:${line}`, policies);
      const twin = policies.get(policy.id);
      if (twin !== undefined)
        wrong(`policy ${policy.id} is already at ${twin.at}: decisions name policies, so names are unique`);
      policies.set(policy.id, policy);
      if (schema === undefined) continue;
      const answer = cedar.validate({
        schema: schema.source,
        policies: { staticPolicies: { [policy.id]: piece.text } },
      });
      if (answer.type === "failure") {
        for (const { message, help } of answer.errors) wrong(message, 0, help);
        continue;
      }
      for (const [severity, found] of [
        ["error", answer.validationErrors],
        ["warning", answer.validationWarnings],
      ] as const) {
        for (const { error } of found) {
          wrong(
            error.message.replace(`for policy \`${policy.id}\`, `, ""),
            error.sourceLocations?.[0]?.start,
            error.help,
            severity,
          );
        }
      }
    }
    // The pieces are what Cedar sees in the whole file, or something is between them that only the whole shows.
    const whole = cedar.policySetTextToParts(text);
    const alike = whole.type === "success" && whole.policies.length + whole.policy_templates.length === pieces.length;
    if (!alike && !problems.some((problem) => problem.file === file.shown && problem.severity === "error")) {
      problems.push(fileProblem("policy-cedar", file.shown, "the file cannot be split into its policies"));
    }
  }
  return { policies: [...policies.values()], problems };
}

/** `refunds.cedar:3`; with its folder where another is called so, with a number where it shares its line. */
function unnamed(at: string, taken: ReadonlyMap<string, unknown>): string {
  const short = at.slice(at.lastIndexOf("/") + 1);
  if (!taken.has(short)) return short;
  let id = at;
  for (let number = 2; taken.has(id); number += 1) id = `${at} (${number})`;
  return id;
}

function policyOf(text: string, json: PolicyJson, at: string, taken: ReadonlyMap<string, unknown>): CedarPolicy {
  const { effect, conditions, annotations = {}, principal, action, resource } = json;
  return {
    id: annotations.id ?? unnamed(at, taken),
    at,
    text,
    permits: effect === "permit",
    unconditional: conditions.length === 0,
    message: annotations.message,
    scope: { principal, action, resource },
  };
}

/** What a request is in one dimension: `*`, `is T`, its uid, and those of everything above it. */
export type Keys = readonly string[];

/** The policies whose scope can match a request: found by the request's own keys, so that the others cost nothing. */
export class CedarIndex {
  readonly #byAction = new Map<string, Map<string, Map<string, CedarPolicy[]>>>();

  constructor(policies: readonly CedarPolicy[]) {
    for (const policy of policies) {
      const { principal, action, resource } = policy.scope;
      for (const a of actionKeys(action)) {
        const byPrincipal = inner(this.#byAction, a, () => new Map<string, Map<string, CedarPolicy[]>>());
        const byResource = inner(byPrincipal, entityKey(principal), () => new Map<string, CedarPolicy[]>());
        inner(byResource, entityKey(resource), (): CedarPolicy[] => []).push(policy);
      }
    }
  }

  candidates(action: Keys, principal: Keys, resource: Keys): readonly CedarPolicy[] {
    const found = new Set<CedarPolicy>();
    for (const a of action) {
      const byPrincipal = this.#byAction.get(a);
      if (byPrincipal === undefined) continue;
      for (const p of principal) {
        const byResource = byPrincipal.get(p);
        if (byResource === undefined) continue;
        for (const r of resource) for (const policy of byResource.get(r) ?? []) found.add(policy);
      }
    }
    return [...found];
  }
}

function inner<Value>(map: Map<string, Value>, key: string, make: () => Value): Value {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}

function actionKeys(constraint: PolicyJson["action"]): readonly string[] {
  if (constraint.op === "All") return ["*"];
  if ("entities" in constraint) return constraint.entities.map(uidOf);
  return "entity" in constraint ? [uidOf(constraint.entity)] : ["*"];
}

export function entityKey(constraint: PolicyJson["principal"] | PolicyJson["resource"]): string {
  switch (constraint.op) {
    case "All":
      return "*";
    case "is":
      return `is ${constraint.entity_type}`;
    default:
      return "entity" in constraint ? uidOf(constraint.entity) : "*";
  }
}

function uidOf(
  uid: { readonly type: string; readonly id: string } | { readonly __entity: { type: string; id: string } },
): string {
  const { type, id } = "__entity" in uid ? uid.__entity : uid;
  return uidText(type, id);
}
