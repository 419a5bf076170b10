import type { Verdict } from "./engine.js";

/** What an enforcement point does besides letting a request through. */
export interface Enforcement {
  /** Whether it meets obligations of this type. */
  meets(type: string): boolean;
  /** Of a type that it does not meet, for the reason: `which the relay does not know`. */
  readonly shortfall: string;
}

/**
 * The verdict as the enforcement point can enforce it: "If the PEP does not understand an obligation, it MUST treat the decision as a denial" (AuthZEN
 * obligations profile 1.0). Here, before limits are asked, so that what comes to nothing takes nothing from them. Where nobody says what the enforcement
 * point meets, obligations are part of the answer.
 */
export function enforceable(verdict: Verdict, enforcement: Enforcement | undefined): Verdict {
  if (enforcement === undefined || !verdict.allowed || verdict.obligations.length === 0) return verdict;
  const isMissing = ({ type }: { readonly type: string }) => !enforcement.meets(type);
  const missing = verdict.obligations.filter(isMissing);
  if (missing.length === 0) return verdict;
  const { draws: _, shadow, requiredBy, ...rest } = verdict;
  const author = requiredBy?.find(({ requires }) => requires.some(isMissing));
  const types = [...new Set(missing.map(({ type }) => type))].join(", ");
  return {
    ...rest,
    ...(author !== undefined && { rule: author.name, at: author.at, message: author.message }),
    allowed: false,
    conditional: true,
    obligations: [],
    reason: `${author?.name ?? verdict.rule} requires ${types}, ${enforcement.shortfall}`,
    // It is denied already: what a rule in shadow would deny makes no difference.
    ...(shadow !== undefined && { shadow: shadow.map((outcome) => ({ ...outcome, differs: false })) }),
  };
}
