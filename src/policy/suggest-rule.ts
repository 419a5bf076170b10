import { stringify } from "yaml";
import { RULES_ENGINE } from "../config/policy-schema.js";
import type { AccessRequest, ConsideredRule, Decision, Properties } from "./access-request.js";
import { compileCondition } from "./condition.js";
import type { WrittenRule } from "./edit-rules.js";
import { methodName, type RuledRequest } from "./rule.js";
import { ruledRequest } from "./ruled-request.js";

/**
 * The narrowest rule that would allow `request`, as YAML to paste under `rules:`: this caller, this service, this tool with exactly these
 * arguments, or this method and path. Undefined where no allow helps: it was allowed, the request cannot be read (no identity), or a rule that
 * denies or limits whatever is allowed, as `considered` of `explain` says, decided.
 */
export function suggestRule(
  request: AccessRequest,
  decision: Decision,
  considered: readonly ConsideredRule[],
): string | undefined {
  const narrowest = narrowestRule(request, decision, considered);
  return narrowest && narrowest.comment + stringify([narrowest.rule], { lineWidth: 0 });
}

export interface NarrowestRule {
  readonly rule: WrittenRule;
  /** What the rule could not be narrowed to, as a YAML comment; empty where it is exact. */
  readonly comment: string;
}

/** The rule of `suggestRule`, to be written into a file. */
export function narrowestRule(
  request: AccessRequest,
  decision: Decision,
  considered: readonly ConsideredRule[],
): NarrowestRule | undefined {
  // What a deny says, and what a limit for whichever rule refuses, stands beside every allow.
  const decided = considered.some(
    ({ rule, effect }) => effect !== "allow" && rule === decision.rule && rule !== "default",
  );
  // No rule of ours makes another engine permit.
  const decidedElsewhere = decision.engine !== RULES_ENGINE && decision.engine !== "";
  if (decision.allowed || decided || decidedElsewhere) return undefined;
  let ruled: RuledRequest;
  try {
    // The rule that is missing may be one about an agent above the caller.
    const { deniedAbove } = decision;
    ruled = ruledRequest(
      deniedAbove === undefined ? request : { ...request, subject: { type: "spiffe", id: deniedAbove } },
    );
  } catch {
    return undefined;
  }
  const { scope, terms: scopeTerms } = scopeOf(ruled);
  const ofAction = ruled.service === undefined ? actionOf(request, scope.action) : undefined;
  const { terms, left } = ofAction === undefined ? termsFor(request, ruled) : { terms: [], left: ofAction.left };
  const when = [...scopeTerms, ...terms].join(" && ");
  const rule = {
    name: nameFor(ruled),
    allow: { ...subjectOf(ruled), ...scope, ...(ofAction?.action !== undefined && { action: ofAction.action }) },
    ...(when === "" ? {} : { when }),
  };
  const comment =
    left.length === 0 ? "" : `# allows any value of: ${left.map((key) => JSON.stringify(key)).join(", ")}\n`;
  return { rule, comment };
}

/** Conditions that pin each argument to the value that it had. */
export interface Terms {
  readonly terms: readonly string[];
  /** Names of arguments that no short condition pins. */
  readonly left: readonly string[];
}

/** An action with the properties that it came with: deleting for good is not deleting softly. */
function actionOf(
  { action }: AccessRequest,
  name: Scope[string] | undefined,
): { readonly action: WrittenAction | undefined; readonly left: readonly string[] } {
  const given = Object.entries(action.properties ?? {});
  const pinned = given.filter(([, value]) => ["string", "number", "boolean"].includes(typeof value) || value === null);
  const left = given.filter((entry) => !pinned.includes(entry)).map(([key]) => key);
  if (pinned.length === 0) return { action: undefined, left };
  return { action: { ...(name !== undefined && { name }), properties: Object.fromEntries(pinned) }, left };
}

interface WrittenAction {
  readonly name?: Scope[string];
  readonly properties: Properties;
}

function subjectOf({ caller, service, subjectType, subjectId }: RuledRequest): Scope {
  if (caller === undefined) {
    return { subject: { type: subjectType, ...(!subjectId.includes("*") && { id: subjectId }) } };
  }
  // Services are always of our own trust domain, so a caller of the same one goes by its short name.
  return { from: caller.trustDomain === service?.trustDomain ? caller.name : caller.id };
}

type Scope = Record<string, string | string[] | Record<string, string>>;

function entityScope({
  action,
  resourceType,
  resourceId,
  subjectId,
  caller,
}: RuledRequest): ReturnType<typeof scopeOf> {
  const terms = [
    ...(action.includes("*") ? [`action.name == ${celLiteral(action)}`] : []),
    ...(resourceId.includes("*") ? [`resource.id == ${celLiteral(resourceId)}`] : []),
    ...(caller === undefined && subjectId.includes("*") ? [`subject.id == ${celLiteral(subjectId)}`] : []),
  ];
  const resource = { type: resourceType, ...(!resourceId.includes("*") && { id: resourceId }) };
  return { scope: { ...(!action.includes("*") && { action }), resource }, terms };
}

// A `*` in a real path or tool name would be read as a pattern, so such a name goes into the condition.
function scopeOf(ruled: RuledRequest): { scope: Scope; terms: readonly string[] } {
  const { service } = ruled;
  if (service === undefined) return entityScope(ruled);
  const { scope, terms } = callScope(ruled);
  return { scope: { to: service.name, ...scope }, terms };
}

function callScope(ruled: RuledRequest): { scope: Scope; terms: readonly string[] } {
  if (ruled.tool?.includes("*")) {
    return { scope: { method: "tools/call" }, terms: [`resource.tool == ${celLiteral(ruled.tool)}`] };
  }
  if (ruled.tool !== undefined) return { scope: { tools: [ruled.tool] }, terms: [] };
  if (ruled.protocol === "tcp") return { scope: { action: ruled.action }, terms: [] };
  const method = methodName(ruled.action);
  if (ruled.path === undefined) return { scope: { method }, terms: [] };
  if (ruled.path.includes("*")) return { scope: { method }, terms: [`request.path == ${celLiteral(ruled.path)}`] };
  return { scope: { method, path: ruled.path }, terms: [] };
}

function nameFor(ruled: RuledRequest): string {
  const last = ruled.caller?.segments.at(-1) ?? ruled.subjectId;
  const what = ruled.tool ?? methodName(ruled.action).toLowerCase();
  return `${last}-${what}`.replaceAll(/[^a-zA-Z0-9._-]+/g, "-").slice(0, 100);
}

const MAX_VALUES = 20;

export function termsFor(request: AccessRequest, ruled: RuledRequest): Terms {
  const mcp = ruled.protocol === "mcp";
  const given = mcp ? request.context?.args : request.context?.query;
  if (typeof given !== "object" || given === null) return { terms: [], left: [] };
  const terms: string[] = [];
  const left: string[] = [];
  for (const [key, value] of Object.entries(given)) {
    const root = mcp ? "args" : "request.query";
    const member = /^[a-zA-Z_][a-zA-Z0-9_]*$/.test(key) ? `${root}.${key}` : `${root}[${celLiteral(key)}]`;
    const literal = celLiteral(value);
    const term = `${member} == ${literal}`;
    if (literal === undefined || terms.length === MAX_VALUES || !compiles(term)) left.push(key);
    else terms.push(term);
  }
  return { terms, left };
}

function compiles(term: string): boolean {
  try {
    compileCondition(term);
    return true;
  } catch {
    return false;
  }
}

export function celLiteral(value: unknown): string | undefined {
  if (typeof value === "boolean" || value === null) return String(value);
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : undefined;
  if (typeof value === "string" && value.length <= 200) {
    return JSON.stringify(value).replaceAll(/[\p{C}\u2028\u2029]/gu, (character) =>
      character.length === 1
        ? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
        : `\\U${(character.codePointAt(0) ?? 0).toString(16).padStart(8, "0")}`,
    );
  }
  return undefined;
}
