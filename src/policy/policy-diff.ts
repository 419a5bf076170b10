import { isDeepStrictEqual } from "node:util";
import type { Entities } from "./entities.js";
import { isAsLoose } from "./limit.js";
import { coversIdentity, coversName, coversSegments } from "./pattern.js";
import type { PolicySet } from "./policy-set.js";
import { describeRule, type Rule } from "./rule.js";

export interface PolicyDifference {
  /** True unless it is shown that nothing denied before is allowed now. */
  readonly widened: boolean;
  /** One line each: `+ allow small-refunds: …`, `- deny …`. Empty where only comments, messages or the order changed. */
  readonly changes: readonly string[];
}

/**
 * Compares two policy sets (D13). Nothing widens if every part of every new allow lies within one old allow with the same or no condition, and
 * every part of every old deny lies within one new deny with the same or no condition. What cannot be shown so counts as widening.
 */
export function diffPolicySets(old: PolicySet, next: PolicySet): PolicyDifference {
  const oldRules = new Map(old.rules.map((rule) => [meaningOf(rule), rule]));
  const nextRules = new Map(next.rules.map((rule) => [meaningOf(rule), rule]));
  const removed = [...oldRules].filter(([meaning]) => !nextRules.has(meaning)).map(([, rule]) => rule);
  const added = [...nextRules].filter(([meaning]) => !oldRules.has(meaning)).map(([, rule]) => rule);

  const looserAllow = added.some(
    (rule) => !rule.shadow && rule.effect === "allow" && !isWithin(rule, inForce(old, "allow"), "grants"),
  );
  const lostDeny = removed.some(
    (rule) => !rule.shadow && rule.effect !== "allow" && !isWithin(rule, inForce(next, rule.effect), "restricts"),
  );
  const entities = entityChanges(old.entities, next.entities);
  return {
    // Whom a condition lets through follows from what is known of them.
    widened: looserAllow || lostDeny || entities.length > 0,
    changes: [...removed.map(line("-")), ...added.map(line("+")), ...entities],
  };
}

function entityChanges(old: Entities, next: Entities): readonly string[] {
  const all = ({ types, ofType }: Entities) => types.flatMap((type) => ofType(type));
  return [
    ...all(old)
      .filter(({ type, id }) => next.get(type, id) === undefined)
      .map(({ type, id }) => `- entities ${type} ${id}`),
    ...all(next).flatMap(({ type, id, properties }) => {
      const before = old.get(type, id);
      if (before === undefined) return [`+ entities ${type} ${id}`];
      return isDeepStrictEqual(before.properties, properties) ? [] : [`~ entities ${type} ${id}`];
    }),
  ];
}

function line(sign: "-" | "+"): (rule: Rule) => string {
  return (rule) => `${sign} ${describeRule(rule)}`;
}

function inForce(set: PolicySet, effect: Rule["effect"]): readonly Rule[] {
  return set.rules.filter((rule) => rule.effect === effect && !rule.shadow);
}

/** All that decides, and nothing that does not: two rules with one meaning are one rule. */
function meaningOf(rule: Rule): string {
  return JSON.stringify([
    [rule.effect, rule.shadow, rule.subjectType ?? null, rule.resourceType ?? null],
    ...listsOf(rule).map((list) => list?.map(({ text }) => text).sort() ?? null),
    rule.terms.map(({ kind, meaning }) => JSON.stringify([kind, meaning])).sort(),
    rule.condition?.source ?? null,
    // Counts go by the name of the rule.
    rule.limit === undefined ? null : [rule.name, rule.limit.text],
    requirementsOf(rule),
  ]);
}

/** The id of an obligation names it, and says nothing of what must be done. */
function requirementsOf({ requires }: Rule): readonly string[] {
  return requires.map(({ type, properties }) => JSON.stringify([type, properties ?? {}])).sort();
}

function listsOf(rule: Rule): readonly (readonly { readonly text: string }[] | undefined)[] {
  const { subjectIds, from, resourceIds, to, tools, actions, paths, uris, prompts } = rule;
  return [subjectIds, from, resourceIds, to, tools, actions, paths, uris, prompts];
}

const MAX_PARTS = 10_000;

/** What both rules of a comparison do: an allow may be covered only by one that asks no more, a deny only by one that asks no less. */
type Kind = "grants" | "restricts";

/** Lies every part of `inner` (one caller, one service, one tool or method, one path) within one of `outers`? */
function isWithin(inner: Rule, outers: readonly Rule[], kind: Kind): boolean {
  const parts = partsOf(inner);
  return parts?.every((part) => outers.some((outer) => covers(outer, part, kind))) ?? false;
}

export function partsOf(rule: Rule): readonly Rule[] | undefined {
  if (listsOf(rule).reduce((product, list) => product * (list?.length ?? 1), 1) > MAX_PARTS) return undefined;
  return LISTS.reduce<readonly Rule[]>((parts, key) => parts.flatMap((part) => partsBy(part, key)), [rule]);
}

const LISTS = ["subjectIds", "from", "resourceIds", "to", "tools", "actions", "paths", "uris", "prompts"] as const;

function partsBy(rule: Rule, key: (typeof LISTS)[number]): readonly Rule[] {
  return rule[key]?.map((one) => ({ ...rule, [key]: [one] })) ?? [rule];
}

function covers(outer: Rule, inner: Rule, kind: Kind): boolean {
  if (outer.condition !== undefined && outer.condition.source !== inner.condition?.source) return false;
  if (!outer.terms.every((term) => inner.terms.some((other) => other.kind === term.kind && term.covers(other)))) {
    return false;
  }
  const [loose, strict] = kind === "grants" ? [outer, inner] : [inner, outer];
  return (
    coversScope(outer, inner) &&
    isLimitedAtMost(loose, strict) &&
    requirementsOf(loose).every((required) => requirementsOf(strict).includes(required))
  );
}

export function coversScope(outer: Rule, inner: Rule): boolean {
  return (
    coversType(outer.subjectType, inner.subjectType ?? (inner.from && "spiffe")) &&
    coversType(outer.resourceType, inner.resourceType) &&
    coversList(outer.subjectIds, inner.subjectIds, coversName) &&
    coversList(outer.from, inner.from, coversIdentity) &&
    coversList(outer.resourceIds, inner.resourceIds, coversName) &&
    coversList(outer.to, inner.to, coversIdentity) &&
    coversList(outer.tools, inner.tools, coversName) &&
    coversList(outer.actions, inner.actions, coversName) &&
    coversList(outer.paths, inner.paths, coversSegments) &&
    coversList(outer.uris, inner.uris, coversSegments) &&
    coversList(outer.prompts, inner.prompts, coversName)
  );
}

function coversType(outer: string | undefined, inner: string | undefined): boolean {
  return outer === undefined || outer === inner;
}

/** Counts go by the name of the rule: under another name they begin anew. */
function isLimitedAtMost(loose: Rule, strict: Rule): boolean {
  if (loose.limit === undefined) return true;
  return strict.limit !== undefined && strict.name === loose.name && isAsLoose(loose.limit, strict.limit);
}

function coversList<Value>(
  outer: readonly Value[] | undefined,
  inner: readonly Value[] | undefined,
  coversOne: (outer: Value, inner: Value) => boolean,
): boolean {
  if (outer === undefined) return true;
  if (inner === undefined) return false;
  return inner.every((one) => outer.some((other) => coversOne(other, one)));
}
