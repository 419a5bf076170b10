import type { AccessRequest, Decision, Obligation } from "../policy/access-request.js";
import type { Enforcement } from "../policy/enforcement.js";

/** A decision with the request it is about. */
export interface Answered {
  readonly request: AccessRequest;
  readonly decision: Decision;
}

/** The member of a request's context by which an enforcement point says which obligations it can meet (obligations profile 1.0). */
const SUPPORTED = "supported_obligations";

/**
 * What the enforcement point that asks says it can do. The profile leaves it to the decision point what to do about one that does not say that it knows an
 * obligation; one that has never heard of the profile would let the request through, so it is told no.
 */
export function enforcementOf({ context }: AccessRequest): Enforcement {
  const supported: unknown = context?.[SUPPORTED];
  const known: readonly unknown[] = Array.isArray(supported) ? supported : [];
  return { meets: (type) => known.includes(type), shortfall: `which context.${SUPPORTED} does not name` };
}

/** An obligation as the profile writes it: `properties` is REQUIRED there. */
export function inWire({ id, type, properties = {} }: Obligation): Record<string, unknown> {
  return { id, type, properties };
}

/**
 * The answer to one evaluation: "The response object MUST contain this boolean-valued Decision key." `id` of the reason object is the decision's, for
 * `agentid explain`; `reason_user` is what the rule's author wrote for callers, `reason_admin` is not for them.
 */
export function answerOf({ id, allowed, reason, message, obligations }: Decision): Record<string, unknown> {
  return {
    decision: allowed,
    context: {
      id,
      reason_admin: { en: reason },
      ...(message !== undefined && { reason_user: { en: message } }),
      ...(obligations.length > 0 && { obligations: obligations.map(inWire) }),
    },
  };
}
