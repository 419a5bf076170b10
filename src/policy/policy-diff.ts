import { isDeepStrictEqual } from "node:util";
import type { Entities } from "./entities.js";
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

  const looserAllow = added.some((rule) => rule.effect === "allow" && !isWithin(rule, allowsOf(old)));
  const lostDeny = removed.some((rule) => rule.effect === "deny" && !isWithin(rule, deniesOf(next)));
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

function allowsOf(set: PolicySet): readonly Rule[] {
  return set.rules.filter((rule) => rule.effect === "allow");
}

function deniesOf(set: PolicySet): readonly Rule[] {
  return set.rules.filter((rule) => rule.effect === "deny");
}

/** All that decides, and nothing that does not: two rules with one meaning are one rule. */
function meaningOf(rule: Rule): string {
  return JSON.stringify([
    rule.effect,
    rule.from?.map((pattern) => pattern.text).sort(),
    rule.to?.map((pattern) => pattern.text).sort(),
    rule.tools?.map((pattern) => pattern.text).sort(),
    rule.methods?.toSorted(),
    rule.paths?.map((pattern) => pattern.text).sort(),
    rule.condition?.source,
  ]);
}

const MAX_PARTS = 10_000;

/** Lies every part of `inner` (one caller, one service, one tool or method, one path) within one of `outers`? */
function isWithin(inner: Rule, outers: readonly Rule[]): boolean {
  const parts = partsOf(inner);
  return parts?.every((part) => outers.some((outer) => covers(outer, part))) ?? false;
}

function partsOf(rule: Rule): readonly Rule[] | undefined {
  const lists = [rule.from, rule.to, rule.tools, rule.methods, rule.paths];
  if (lists.reduce((product, list) => product * (list?.length ?? 1), 1) > MAX_PARTS) return undefined;
  const one = <Value>(list: readonly Value[] | undefined) => list?.map((value) => [value]) ?? [undefined];
  return one(rule.from).flatMap((from) =>
    one(rule.to).flatMap((to) =>
      one(rule.tools).flatMap((tools) =>
        one(rule.methods).flatMap((methods) =>
          one(rule.paths).map((paths) => ({ ...rule, from, to, tools, methods, paths })),
        ),
      ),
    ),
  );
}

function covers(outer: Rule, inner: Rule): boolean {
  if (outer.condition !== undefined && outer.condition.source !== inner.condition?.source) return false;
  return (
    coversList(outer.from, inner.from, coversIdentity) &&
    coversList(outer.to, inner.to, coversIdentity) &&
    coversList(outer.tools, inner.tools, coversName) &&
    coversList(outer.methods, inner.methods, (a, b) => a === b) &&
    coversList(outer.paths, inner.paths, coversSegments)
  );
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
