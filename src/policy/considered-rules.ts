import type { ConsideredRule } from "./access-request.js";
import type { ConditionInput, ConditionOutcome } from "./condition.js";
import type { RequestFacts } from "./request-facts.js";
import {
  describeScope,
  differenceOf,
  methodName,
  type Rule,
  type RuledRequest,
  speaksOfResource,
  speaksOfSubject,
} from "./rule.js";

/**
 * The rules that a person asking "why" wants to see, in the order of their names: all that speak of this subject and this resource. Where there
 * are none, those that speak of the resource, so that the nearest rule is seen to be about somebody else; the deny by default stands last.
 */
export function considerRules(
  rules: readonly Rule[],
  request: RuledRequest,
  facts: RequestFacts,
  input: ConditionInput,
  verdict: { readonly allowed: boolean; readonly rule: string },
): readonly ConsideredRule[] | Promise<readonly ConsideredRule[]> {
  const aboutResource = rules.filter((rule) => speaksOfResource(rule, request));
  const aboutBoth = aboutResource.filter((rule) => speaksOfSubject(rule, request));
  const shown = aboutBoth.length > 0 ? aboutBoth : aboutResource;
  // Of very many rules the one that decided is always among those shown.
  const considered = shown
    .filter((rule, index) => index < MAX_SHOWN || rule.name === verdict.rule)
    .map((rule) => consider(rule, request, facts, input));
  const last = verdict.allowed || verdict.rule !== "default" ? [] : [BY_DEFAULT];
  return considered.some((each) => each instanceof Promise)
    ? Promise.all(considered).then((settled) => [...settled, ...last])
    : [...(considered as readonly ConsideredRule[]), ...last];
}

const BY_DEFAULT: ConsideredRule = {
  rule: "default",
  at: "",
  effect: "deny",
  outcome: "matched",
  detail: "everything that no rule allows is denied",
};

const MAX_SHOWN = 200;

function consider(
  rule: Rule,
  request: RuledRequest,
  facts: RequestFacts,
  input: ConditionInput,
): ConsideredRule | Promise<ConsideredRule> {
  const base = { rule: rule.name, at: rule.at, effect: rule.effect, ...(rule.shadow && { shadow: true }) };
  const difference = differenceOf(rule, request);
  if (difference !== undefined) {
    return { ...base, outcome: difference, detail: `${describeScope(rule)} ≠ ${asked(difference, request)}` };
  }
  const unmet = rule.terms.map((term) => term.unmet(facts)).find((each) => each !== undefined);
  if (unmet !== undefined) return { ...base, ...unmet };
  const { condition } = rule;
  if (condition === undefined) return { ...base, outcome: "matched", detail: describeScope(rule) };
  const considered = (outcome: ConditionOutcome): ConsideredRule => {
    const detail = condition.describe(input, outcome);
    if (outcome.outcome === "true") return { ...base, outcome: "matched", detail };
    if (outcome.outcome === "false") return { ...base, outcome: "condition-false", detail };
    const missing = missingFact(condition.variables, facts);
    return missing === undefined
      ? { ...base, outcome: "condition-error", detail }
      : { ...base, outcome: "fact-missing", detail: `${detail}: ${missing}` };
  };
  const outcome: ConditionOutcome | Promise<ConditionOutcome> = condition.evaluate(input);
  return outcome instanceof Promise ? outcome.then(considered) : considered(outcome);
}

/** Why a condition failed that reads what nobody has said. */
function missingFact(variables: ReadonlySet<string>, { user, actors }: RequestFacts): string | undefined {
  if (variables.has("user") && user === undefined) return "nobody said for which user this is";
  if (variables.has("actors") && actors.length === 0) return "nobody said through whose hands this came";
  return undefined;
}

function asked(difference: ConsideredRule["outcome"], request: RuledRequest): string {
  const { caller, service } = request;
  if (difference === "subject-differs") return caller?.name ?? `${request.subjectType}:${request.subjectId}`;
  if (difference === "resource-differs") return service?.name ?? `${request.resourceType}:${request.resourceId}`;
  const { tool, uri, prompt, path } = request;
  const what = tool ?? methodName(request.action);
  const which = uri?.text ?? prompt ?? path;
  return which === undefined ? what : `${what} ${which}`;
}
