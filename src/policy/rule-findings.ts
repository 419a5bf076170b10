import { comparisonOf, contradictionIn, impliesComparison } from "./comparison.js";
import { coversScope, partsOf } from "./policy-diff.js";
import type { PolicySet } from "./policy-set.js";
import type { Rule } from "./rule.js";

/** Something that a rule says in vain. */
export interface RuleFinding {
  readonly rule: string;
  /** `policies/payments.yaml:11`. */
  readonly at: string;
  readonly kind: "never-holds" | "never-allows" | "adds-nothing";
  readonly detail: string;
}

/** Rules are compared with each other; of more the findings would take longer than a person waits. */
const MOST_COMPARED = 2_000;

/**
 * Rules that cannot be reached and rules that contradict each other, as far as literal fields and comparisons decide it: a condition that nothing
 * fulfils, an allow within a deny, a rule within another one that says the same. Undefined beside the findings where there are too many to compare.
 */
export function ruleFindings({ rules }: PolicySet): {
  readonly findings: readonly RuleFinding[];
  readonly all: boolean;
} {
  const alone = rules.flatMap(neverHolds);
  const vain = new Set(alone.map(({ rule }) => rule));
  const inForce = rules.filter(({ shadow, name }) => !shadow && !vain.has(name));
  if (inForce.length > MOST_COMPARED) return { findings: alone, all: false };
  const denies = inForce.filter(({ effect }) => effect === "deny");
  const found = inForce.flatMap((rule): readonly RuleFinding[] => {
    if (rule.effect === "match") return [];
    const parts = partsOf(rule) ?? [];
    if (rule.effect === "allow") {
      const denied = withinEach(parts, denies);
      if (denied !== undefined) return [finding(rule, "never-allows", `all of it is denied by ${denied}`)];
    }
    // Of two that say the same the first by name stays.
    const twins = inForce.filter((other) => other !== rule && other.effect === rule.effect && isFree(other));
    const others = twins.filter((other) => other.name < rule.name || !isWithin(other, [rule]));
    const same = withinEach(parts, others);
    return same === undefined
      ? []
      : [finding(rule, "adds-nothing", `all of it is ${rule.effect === "allow" ? "allowed" : "denied"} by ${same}`)];
  });
  return { findings: [...alone, ...found], all: true };
}

function neverHolds(rule: Rule): readonly RuleFinding[] {
  const [one, other] = contradictionIn(rule.condition?.terms ?? []) ?? [];
  return one === undefined ? [] : [finding(rule, "never-holds", `${one} and ${other} never hold together`)];
}

function finding(rule: Rule, kind: RuleFinding["kind"], detail: string): RuleFinding {
  return { rule: rule.name, at: rule.at, kind, detail };
}

/** An allow that asks for more than its condition (a limit, an obligation) does not stand for one that does not. */
function isFree({ effect, limit, requires }: Rule): boolean {
  return effect !== "allow" || (limit === undefined && requires.length === 0);
}

function isWithin(inner: Rule, outers: readonly Rule[]): boolean {
  const parts = partsOf(inner);
  return parts !== undefined && withinEach(parts, outers) !== undefined;
}

/** Names of the rules in which the parts lie, or undefined where one of them lies in none. */
function withinEach(parts: readonly Rule[], outers: readonly Rule[]): string | undefined {
  const names = new Set<string>();
  for (const part of parts) {
    const outer = outers.find((each) => coversScope(each, part) && holdsWherever(each, part));
    if (outer === undefined) return undefined;
    names.add(`${outer.name} (${outer.at})`);
  }
  return names.size === 0 ? undefined : [...names].join(", ");
}

function asked({ kind, meaning }: Rule["terms"][number]): string {
  return JSON.stringify([kind, meaning]);
}

/** Whatever fulfils the terms and the condition of `inner` fulfils those of `outer`. */
function holdsWherever(outer: Rule, inner: Rule): boolean {
  const given = new Set(inner.terms.map(asked));
  if (!outer.terms.every((term) => given.has(asked(term)))) return false;
  const terms = (inner.condition?.terms ?? []).map((term) => term.trim());
  return (outer.condition?.terms ?? []).every((wanted) => {
    if (terms.includes(wanted.trim())) return true;
    const comparison = comparisonOf(wanted);
    if (comparison === undefined) return false;
    return terms.some((term) => {
      const known = comparisonOf(term);
      return known !== undefined && impliesComparison(known, comparison);
    });
  });
}
