import { messageOf } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";
import type { AccessRequest, ConsideredRule, Decision, DecisionPoint, Properties } from "./access-request.js";
import type { ConditionInput, ConditionOutcome } from "./condition.js";
import { considerRules } from "./considered-rules.js";
import { decisionIds } from "./decision-id.js";
import { questionsAbove } from "./launch-chain.js";
import { type IdentityParts, identityParts } from "./pattern.js";
import type { PolicySet } from "./policy-set.js";
import { differenceOf, isUnrestricted, methodName, type Rule, type RuledRequest, speaksOf } from "./rule.js";
import { type RankedRule, RuleIndex } from "./rule-index.js";
import { conditionInput, isSessionMethod, ruledRequest } from "./ruled-request.js";

export interface DecisionPointOptions {
  readonly clock: Clock;
  /** `size` random bytes; node:crypto's `randomBytes` outside of tests. */
  readonly random: (size: number) => Uint8Array;
}

const NO_VALUES: Properties = {};

/**
 * The decision point over one policy set. Everything is denied unless an allow rule speaks of it and no deny rule does; an allow whose
 * condition fails with an error does not allow, a deny whose condition fails with an error denies.
 */
export function createDecisionPoint(set: PolicySet, options: DecisionPointOptions): DecisionPoint {
  const index = new RuleIndex(set.rules);
  const nextId = decisionIds(options.random);
  const ownTrustDomain = set.names.trustDomain.name;

  const decide = (request: AccessRequest, id: () => string): Decision => {
    const started = performance.now();
    let verdict: Verdict;
    try {
      verdict = judgeWithChain(request);
    } catch (thrown) {
      verdict = { ...DENIED, reason: messageOf(thrown) };
    }
    return {
      id: id(),
      allowed: verdict.allowed,
      rule: verdict.rule?.name ?? "default",
      at: verdict.rule?.at,
      reason: verdict.reason,
      message: verdict.allowed ? undefined : verdict.rule?.message,
      policyDigest: set.digest,
      values: verdict.values,
      conditional: verdict.conditional,
      deniedAbove: verdict.above,
      durationMicros: (performance.now() - started) * 1000,
    };
  };

  /** The caller and each agent above it must be permitted. Of several denials one that no other arguments would help counts, else the nearest. */
  const judgeWithChain = (request: AccessRequest): Verdict => {
    const own = judge(request);
    const questions = questionsAbove(request);
    if (questions.length === 0) return own;
    const verdicts = [own, ...questions.map((question) => judgedAbove(question, judge(question)))];
    const denials = verdicts.filter(({ allowed }) => !allowed);
    const values = Object.assign({}, ...verdicts.map((verdict) => verdict.values));
    const decisive = denials.find(({ conditional }) => !conditional) ?? denials[0];
    return { ...(decisive ?? own), values };
  };

  const judgedAbove = (question: AccessRequest, verdict: Verdict): Verdict => {
    const { id } = question.subject;
    const { name, trustDomain } = identityParts(id);
    const who = trustDomain === ownTrustDomain ? name : id;
    const values = Object.fromEntries(Object.entries(verdict.values).map(([key, value]) => [`${who}: ${key}`, value]));
    return { ...verdict, above: id, reason: `${who}, which launched the caller: ${verdict.reason}`, values };
  };

  const judge = (request: AccessRequest): Verdict => {
    const ruled = ruledRequest(request);
    const hits = new Hits(request, ruled, options.clock);
    index.forRequest(ruled, (ranked) => hits.consider(ranked));
    const values = hits.values;
    if (hits.deny !== undefined) {
      const { rule } = hits.deny.ranked;
      const conditional = !hits.deniedWhatever && hits.couldAllow;
      return { allowed: false, rule, reason: hits.denialReason(hits.deny), values, conditional };
    }
    if (hits.allow !== undefined) {
      const { rule } = hits.allow.ranked;
      return { allowed: true, rule, reason: `allowed by ${rule.name}`, values, conditional: false };
    }
    if (ruled.protocol === "mcp" && isSessionMethod(ruled.action)) {
      const opening = reaches(ruled.caller, ruled.service);
      if (opening !== undefined) {
        const reason = `${ruled.action} is part of the session that ${opening.name} allows`;
        return { allowed: true, rule: opening, reason, values, conditional: false };
      }
    }
    if (hits.nearMiss !== undefined) {
      const { rule } = hits.nearMiss.ranked;
      return { allowed: false, rule, reason: hits.nearMissReason(hits.nearMiss), values, conditional: true };
    }
    return { ...DENIED, reason: defaultReason(ruled, ownTrustDomain), values };
  };

  /** The first allow rule by name that speaks of anything between the two, unless a deny rule forbids all of it. */
  const reaches = (caller: IdentityParts, service: IdentityParts): Rule | undefined => {
    let first: RankedRule | undefined;
    let forbidden = false;
    index.between(caller.id, service.id, (ranked) => {
      const { rule } = ranked;
      if (!speaksOf(rule.from, caller) || !speaksOf(rule.to, service)) return;
      if (rule.effect === "deny") forbidden ||= isUnrestricted(rule);
      else if (first === undefined || ranked.rank < first.rank) first = ranked;
    });
    return forbidden ? undefined : first?.rule;
  };

  const couldAllowTool = (caller: string, service: string, tool: string): boolean => {
    const ruled: RuledRequest = {
      caller: identityParts(caller),
      service: identityParts(service),
      protocol: "mcp",
      action: "tools/call",
      tool,
      path: undefined,
      pathSegments: [],
    };
    let allowed = false;
    let denied = false;
    index.forRequest(ruled, ({ rule }) => {
      if (differenceOf(rule, ruled) !== undefined) return;
      if (rule.effect === "allow") allowed = true;
      else denied ||= rule.condition === undefined;
    });
    return allowed && !denied;
  };

  return {
    policyDigest: set.digest,
    decide: (request) => decide(request, nextId),
    explain(request) {
      const decision = decide(request, () => "");
      let considered: readonly ConsideredRule[];
      try {
        considered = [request, ...questionsAbove(request)].flatMap((question, index) => {
          const ruled = ruledRequest(question);
          const input = conditionInput(question, ruled, new Date(options.clock.now()));
          const rules = considerRules(set, ruled, input, judge(question));
          return index === 0 ? rules : rules.map((rule) => ({ ...rule, subject: ruled.caller.id }));
        });
      } catch {
        // No rule speaks of a request that cannot be read; the decision's reason says what is wrong with it.
        considered = [];
      }
      return { decision, considered };
    },
    couldAllowTool(caller, service, tool, launchedBy = []) {
      try {
        return [caller, ...launchedBy].every((each) => couldAllowTool(each, service, tool));
      } catch {
        return false;
      }
    },
    couldReach(caller, service, launchedBy = []) {
      try {
        const parts = identityParts(service);
        return [caller, ...launchedBy].every((each) => reaches(identityParts(each), parts) !== undefined);
      } catch {
        return false;
      }
    },
  };
}

interface Verdict {
  readonly allowed: boolean;
  readonly rule: Rule | undefined;
  readonly reason: string;
  readonly values: Properties;
  readonly conditional: boolean;
  /** The agent above the caller that was judged. */
  readonly above?: string;
}

const DENIED: Verdict = { allowed: false, rule: undefined, reason: "", values: NO_VALUES, conditional: false };

interface Hit {
  readonly ranked: RankedRule;
  readonly outcome: ConditionOutcome | undefined;
}

/** Collects, in any order, what the rules say of one request; of several rules of a kind the first by name counts. */
class Hits {
  deny: Hit | undefined;
  allow: Hit | undefined;
  /** An allow that only its condition kept from allowing. */
  nearMiss: Hit | undefined;
  /** Some deny speaks of the request without a condition: no other arguments would help. */
  deniedWhatever = false;
  couldAllow = false;
  values: Properties = NO_VALUES;
  readonly #request: AccessRequest;
  readonly #ruled: RuledRequest;
  readonly #clock: Clock;
  #input: ConditionInput | undefined;

  constructor(request: AccessRequest, ruled: RuledRequest, clock: Clock) {
    this.#request = request;
    this.#ruled = ruled;
    this.#clock = clock;
  }

  consider(ranked: RankedRule): void {
    const { rule } = ranked;
    if (differenceOf(rule, this.#ruled) !== undefined) return;
    const outcome = this.#outcomeOf(rule);
    const hit = { ranked, outcome };
    if (rule.effect === "deny") {
      if (outcome?.outcome === "false") return;
      if (outcome === undefined) this.deniedWhatever = true;
      this.deny = first(this.deny, hit);
      return;
    }
    this.couldAllow = true;
    if (outcome === undefined || outcome.outcome === "true") this.allow = first(this.allow, hit);
    else this.nearMiss = first(this.nearMiss, hit);
  }

  denialReason({ ranked: { rule }, outcome }: Hit): string {
    if (rule.condition === undefined || outcome === undefined) return `denied by ${rule.name}`;
    return `denied by ${rule.name}: ${rule.condition.describe(this.#conditionInput(), outcome)}`;
  }

  nearMissReason({ ranked: { rule }, outcome }: Hit): string {
    if (rule.condition === undefined || outcome === undefined) return `${rule.name} does not allow it`;
    return `${rule.name} needs ${rule.condition.describe(this.#conditionInput(), outcome)}`;
  }

  #outcomeOf(rule: Rule): ConditionOutcome | undefined {
    if (rule.condition === undefined) return undefined;
    const input = this.#conditionInput();
    this.values = { ...this.values, ...rule.condition.valuesUsed(input) };
    return rule.condition.evaluate(input);
  }

  #conditionInput(): ConditionInput {
    this.#input ??= conditionInput(this.#request, this.#ruled, new Date(this.#clock.now()));
    return this.#input;
  }
}

function first(known: Hit | undefined, other: Hit): Hit {
  return known === undefined || other.ranked.rank < known.ranked.rank ? other : known;
}

function defaultReason(ruled: RuledRequest, ownTrustDomain: string): string {
  const caller = ruled.caller.trustDomain === ownTrustDomain ? ruled.caller.name : ruled.caller.id;
  const what =
    ruled.tool === undefined
      ? `${methodName(ruled.action)}${ruled.path === undefined ? "" : ` ${ruled.path}`}`
      : ruled.tool;
  return `no rule allows ${caller} ${what} at ${ruled.service.name}`;
}
