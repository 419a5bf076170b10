import type { AccessRequest, ConsideredRule, Decision } from "./access-request.js";
import { comparisonOf } from "./comparison.js";
import { type ConditionInput, compileCondition } from "./condition.js";
import type { WrittenRule } from "./edit-rules.js";
import { knownLabels } from "./policy-names.js";
import type { PolicySet } from "./policy-set.js";
import { RequestFacts } from "./request-facts.js";
import type { Rule } from "./rule.js";
import { conditionInput, ruledRequest } from "./ruled-request.js";
import { celLiteral, narrowestRule, termsFor } from "./suggest-rule.js";

/** One way to allow a call that was denied. */
export interface Proposal {
  /** `a rule for issue_refund with invoice 1017 and amount 4200 only`. */
  readonly title: string;
  /** It allows more than this very call. */
  readonly widens: boolean;
  readonly change: ProposedChange;
}

export type ProposedChange =
  | { readonly kind: "add"; readonly rule: WrittenRule; readonly comment: string }
  /** Another condition for a rule that has one, by name, in `file`. */
  | { readonly kind: "when"; readonly rule: string; readonly file: string; readonly when: string };

/**
 * What would allow `request`, least privilege first: a rule for this very call; the rules that only a comparison kept from allowing, looser for
 * this call alone; the same, looser for every call. Empty where no allow helps.
 */
export function proposalsFor(
  request: AccessRequest,
  decision: Decision,
  considered: readonly ConsideredRule[],
  set: PolicySet,
  now: Date,
): readonly Proposal[] {
  const narrowest = narrowestRule(request, decision, considered);
  if (narrowest === undefined) return [];
  const { rule, comment } = narrowest;
  // The rule that is missing may be about an agent above the caller.
  const whose = decision.deniedAbove === undefined ? "" : `${scopeIn(rule).from}: `;
  const exact: Proposal = {
    title: `a rule for ${whose}${wordsOf(rule)}${comment === "" ? " only" : ""}${withoutWhat(considered, decision, set)}`,
    widens: comment !== "",
    change: { kind: "add", ...narrowest },
  };
  const missed = considered.filter(
    ({ effect, outcome, subject }) =>
      effect === "allow" && outcome === "condition-false" && subject === decision.deniedAbove,
  );
  const looser = missed.flatMap(({ rule: name }) => {
    const found = set.rules.find((each) => each.name === name);
    return found === undefined ? [] : looserConditions(found, request, set, now);
  });
  return [exact, ...looser.toSorted((a, b) => Number(a.widens) - Number(b.widens))];
}

function scopeIn(rule: WrittenRule): Readonly<Record<string, unknown>> {
  return rule.allow as Readonly<Record<string, unknown>>;
}

function wordsOf(rule: WrittenRule): string {
  const { subject, action, resource, ...allow } = scopeIn(rule);
  const what = [
    entityWords(subject),
    allow.tools,
    allow.method,
    actionWords(action),
    allow.path,
    entityWords(resource),
  ];
  const when = typeof rule.when === "string" ? ` with ${rule.when.replaceAll(" && ", " and ")}` : "";
  return `${what.filter((each) => each !== undefined).join(" ") || "everything"}${when}`;
}

/** `user:bob`, or `any user`. */
function entityWords(written: unknown): string | undefined {
  if (typeof written !== "object" || written === null) return undefined;
  const { type, id } = written as { readonly type?: string; readonly id?: string };
  return id === undefined ? `any ${type}` : `${type}:${id}`;
}

function actionWords(written: unknown): string | undefined {
  if (typeof written !== "object" || written === null) return written === undefined ? undefined : String(written);
  const { name = "any action", properties = {} } = written as { readonly name?: string; readonly properties?: object };
  const values = Object.entries(properties).map(([key, value]) => `${key} ${String(value)}`);
  return `${name} (${values.join(", ")})`;
}

/**
 * What the new rule does not ask for and rules about this call do: whoever takes it should know that it is a way around an approval, a limit or
 * the user for whom the call must be.
 */
function withoutWhat(considered: readonly ConsideredRule[], { deniedAbove }: Decision, set: PolicySet): string {
  const without = considered.flatMap(({ rule: name, effect, outcome, detail, subject, shadow }) => {
    if (effect !== "allow" || subject !== deniedAbove || shadow === true) return [];
    const rule = set.rules.find((each) => each.name === name);
    if (outcome === "fact-missing") return [`the ${detail.split(":", 1)[0]} of ${name}`];
    if (outcome !== "matched" || rule === undefined) return [];
    const limit = rule.limit === undefined ? [] : [`the limit of ${name}`];
    return [...rule.requires.map(({ type }) => `the ${type} of ${name}`), ...limit];
  });
  return without.length === 0 ? "" : `, without ${without.join(" and ")}`;
}

function looserConditions(rule: Rule, request: AccessRequest, set: PolicySet, now: Date): readonly Proposal[] {
  const { condition } = rule;
  if (condition === undefined) return [];
  const ruled = ruledRequest(request);
  const facts = new RequestFacts(request, set.entities, now.getTime());
  const input = conditionInput(request, ruled, facts, knownLabels(set.names));
  const terms = condition.terms.map((term) => {
    return allows(term, input) ? term : looserTerm(term, input);
  });
  if (terms.some((term) => term === undefined)) return [];
  const looser = terms.join(" && ");
  if (!allows(looser, input)) return [];
  const file = rule.at.slice(0, rule.at.lastIndexOf(":"));
  const change = (when: string): ProposedChange => ({ kind: "when", rule: rule.name, file, when });
  const forAll: Proposal = { title: `${rule.at} for every call: ${looser}`, widens: true, change: change(looser) };
  const used = new Set(condition.references.map((path) => path.join(".")));
  const { terms: given, left } = termsFor(request, ruled);
  const pins = given.filter((term) => !used.has(term.slice(0, term.indexOf(" =="))));
  const pinned = `(${condition.source.trim()}) || (${[...pins, ...terms].join(" && ")})`;
  if (pins.length === 0 || !allows(pinned, input)) return [forAll];
  // Not widening beyond the call in each argument that the rule leaves free, yet more than the call alone.
  const title = `${rule.at} where ${pins.join(" and ")}: ${looser}`;
  const root = ruled.protocol === "mcp" ? "args" : "request.query";
  const widens = left.some((key) => !used.has(`${root}.${key}`));
  return [{ title, widens, change: change(pinned) }, forAll];
}

function allows(when: string, input: ConditionInput): boolean {
  try {
    // Where arguments are so large that the answer comes later, nothing looser is proposed.
    const outcome = compileCondition(when).evaluate(input);
    return !(outcome instanceof Promise) && outcome.outcome === "true";
  } catch {
    return false;
  }
}

const LOOSER = { "<=": "<=", "<": "<=", ">=": ">=", ">": ">=" } as const;

/** `args.amount <= 1000` as `args.amount <= 4200` where it is 4200; undefined where it is no comparison with a literal. */
function looserTerm(term: string, input: ConditionInput): string | undefined {
  const comparison = comparisonOf(term);
  if (comparison === undefined) return undefined;
  const { path, operator, literal } = comparison;
  const [actual] = Object.values(compileCondition(`${path} == ${path}`).valuesUsed(input));
  const written = celLiteral(actual);
  if (written === undefined) return undefined;
  return operator === "==" ? `${path} in [${literal}, ${written}]` : `${path} ${LOOSER[operator]} ${written}`;
}
