import { randomBytes } from "node:crypto";
import type { Decision, DecisionPoint } from "./access-request.js";
import { decisionIds } from "./decision-id.js";
import { shownReason } from "./shown-reason.js";

const newDecisionId = decisionIds(randomBytes);

/** A decision that an enforcement point makes without asking. `rule` names the reason: a refusal's code, or `reach`. */
export function ownDecision(
  decisionPoint: () => DecisionPoint,
  { engine, allowed, rule, reason }: Pick<Decision, "engine" | "allowed" | "rule" | "reason">,
): Decision {
  return {
    id: newDecisionId(),
    allowed,
    engine,
    rule,
    at: undefined,
    reason: shownReason(reason),
    message: undefined,
    policyDigest: digestOf(decisionPoint),
    values: {},
    conditional: false,
    deniedAbove: undefined,
    obligations: [],
    durationMicros: 0,
  };
}

/** A decision point that fails is a reason to deny, not a reason to leave the denial out of the record. */
export function digestOf(decisionPoint: () => DecisionPoint): string {
  try {
    return decisionPoint().policyDigest;
  } catch {
    return "";
  }
}
