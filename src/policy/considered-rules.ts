import type { ConsideredRule } from "./access-request.js";
import type { ConditionInput, ConditionOutcome } from "./condition.js";
import { describeScope, differenceOf, methodName, type Rule, type RuledRequest, speaksOf } from "./rule.js";

/**
 * The rules that a person asking "why" wants to see, in the order of their names: all that speak of this caller at this service. Where there are
 * none, those that speak of the service, so that the nearest rule is seen to be about somebody else; the deny by default stands last.
 */
export function considerRules(
  rules: readonly Rule[],
  request: RuledRequest,
  input: ConditionInput,
  verdict: { readonly allowed: boolean; readonly rule: string },
): readonly ConsideredRule[] | Promise<readonly ConsideredRule[]> {
  const aboutService = rules.filter((rule) => speaksOf(rule.to, request.service));
  const aboutBoth = aboutService.filter((rule) => speaksOf(rule.from, request.caller));
  const shown = aboutBoth.length > 0 ? aboutBoth : aboutService;
  // Of very many rules the one that decided is always among those shown.
  const considered = shown
    .filter((rule, index) => index < MAX_SHOWN || rule.name === verdict.rule)
    .map((rule) => consider(rule, request, input));
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

function consider(rule: Rule, request: RuledRequest, input: ConditionInput): ConsideredRule | Promise<ConsideredRule> {
  const base = { rule: rule.name, at: rule.at, effect: rule.effect };
  const difference = differenceOf(rule, request);
  if (difference !== undefined) {
    return { ...base, outcome: difference, detail: `${describeScope(rule)} ≠ ${asked(difference, request)}` };
  }
  const { condition } = rule;
  if (condition === undefined) return { ...base, outcome: "matched", detail: describeScope(rule) };
  const considered = (outcome: ConditionOutcome): ConsideredRule => {
    const detail = condition.describe(input, outcome);
    if (outcome.outcome === "true") return { ...base, outcome: "matched", detail };
    return { ...base, outcome: outcome.outcome === "false" ? "condition-false" : "condition-error", detail };
  };
  const outcome = condition.evaluate(input);
  return outcome instanceof Promise ? outcome.then(considered) : considered(outcome);
}

function asked(difference: ConsideredRule["outcome"], request: RuledRequest): string {
  if (difference === "subject-differs") return request.caller.name;
  if (difference === "resource-differs") return request.service.name;
  if (request.tool !== undefined) return request.tool;
  return request.path === undefined ? request.action : `${methodName(request.action)} ${request.path}`;
}
