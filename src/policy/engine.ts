import type { AccessRequest, ConsideredRule, Obligation, Properties, ShadowOutcome } from "./access-request.js";
import type { Draw } from "./limit-counts.js";
import type { Rule } from "./rule.js";

/**
 * One way to judge a request: our rules, Cedar, Rego, another decision point. Of the engines that are asked all must permit; a request that no
 * engine is asked about is denied (D15). What an engine throws or rejects with is a denial.
 */
export interface PolicyEngine {
  /** `rules`, or the name that `agentid.yaml` gives it. */
  readonly name: string;
  /** Hex SHA-256 over all that it decides by; part of the digest of the policy set. */
  readonly digest: string;
  /** Whether the resource lies in its scope. */
  isAsked(request: AccessRequest): boolean;
  /** Judges this one subject, not the agents that launched it: for them it is asked again. Without a promise wherever that can be. */
  judge(request: AccessRequest, use: JudgeUse): Verdict | Promise<Verdict>;
  /** What was looked at on the way to `verdict`, as far as the engine can tell. */
  consider(request: AccessRequest, verdict: Verdict): readonly ConsideredRule[] | Promise<readonly ConsideredRule[]>;
  /** Could some arguments make this action of this caller allowed? An engine that cannot tell says true: the call itself is still decided. */
  couldAllow(question: Possibility): boolean;
  /** It cannot tell: what carries no call of its own, a stream of messages, is put to it as well. */
  readonly cannotTell?: true;
}

/** `decide`: limits count it. `explain`: nothing changes by asking. */
export type JudgeUse = "decide" | "explain";

/** Any call of a tool, or, without a tool, anything at all that the caller may do at the service. SPIFFE IDs. */
export interface Possibility {
  readonly caller: string;
  readonly service: string;
  readonly tool?: string;
}

export interface Verdict {
  readonly allowed: boolean;
  /** The rule that decided, or `default`. */
  readonly rule: string;
  readonly at: string | undefined;
  readonly reason: string;
  readonly message: string | undefined;
  readonly values: Properties;
  /** Of a denial: other arguments, another time or another rate could be allowed. */
  readonly conditional: boolean;
  /** What the enforcement point must do besides; empty for a denial. */
  readonly obligations: readonly Obligation[];
  /** Which rules oblige to it, where it is rules that do. */
  readonly requiredBy?: readonly Pick<Rule, "name" | "at" | "message" | "requires">[];
  /** What an allow takes from limits. It is taken where the whole decision is an allow; where one of them gives nothing, that is a denial. */
  readonly draws?: readonly RuleDraw[];
  /** What rules in shadow would have done. */
  readonly shadow?: readonly ShadowOutcome[];
}

/** A draw, and the rule whose limit it is from. */
export interface RuleDraw extends Draw {
  readonly rule: string;
  readonly at: string;
  readonly message: string | undefined;
  /** `10 per minute for each identity`. */
  readonly text: string;
}
