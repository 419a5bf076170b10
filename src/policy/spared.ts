import { isSpared } from "../control-api/shadow-words.js";
import type { Decision } from "./access-request.js";

/**
 * The denial that an identity in shadow was spared, as it will be when its shadow ends; undefined where nobody was spared anything. What a rule
 * in shadow would deny is not among it: no rule that allows would help against that.
 */
export function sparedDenial(decision: Decision): Decision | undefined {
  const spared = decision.allowed ? decision.shadow?.find(isSpared) : undefined;
  if (spared === undefined) return undefined;
  const { rule, at, reason, subject } = spared;
  return { ...decision, allowed: false, rule, at, reason, deniedAbove: subject };
}
