import type { ConsideredRule, Obligation, Properties } from "../access-request.js";
import type { Verdict } from "../engine.js";

const NO_VALUES: Properties = {};

export interface Judgement {
  readonly rule: string;
  readonly at?: string | undefined;
  readonly reason: string;
  readonly message?: string | undefined;
  readonly obligations?: readonly Obligation[];
}

export function permitted({ rule, at, reason, obligations = [] }: Judgement): Verdict {
  const base = { rule, at, reason, message: undefined, values: NO_VALUES };
  return { ...base, allowed: true, conditional: false, obligations };
}

/** `conditional`: other arguments could be permitted; where an engine cannot tell, the caller is told why (D17). */
export function refused({ rule, at, reason, message }: Judgement, conditional = true): Verdict {
  return { allowed: false, rule, at, reason, message, values: NO_VALUES, conditional, obligations: [] };
}

/** The one line that explains the verdict of an engine that does not show its rules. */
export function consideredAs(engine: string, verdict: Verdict): readonly ConsideredRule[] {
  const { allowed, rule, at, reason } = verdict;
  return [
    {
      rule: engineRule(engine, rule),
      at: at ?? "",
      effect: allowed ? "allow" : "deny",
      outcome: "matched",
      detail: reason,
    },
  ];
}

export function engineRule(engine: string, rule: string): string {
  return rule === engine ? engine : `${engine}: ${rule}`;
}
