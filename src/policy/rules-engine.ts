import type { Clock } from "../platform/clock.js";
import type { AccessRequest, Properties } from "./access-request.js";
import type { ConditionInput, ConditionOutcome } from "./condition.js";
import { considerRules } from "./considered-rules.js";
import type { PolicyEngine, Verdict } from "./engine.js";
import { type IdentityParts, identityParts } from "./pattern.js";
import type { PolicyNames } from "./policy-names.js";
import { differenceOf, isUnrestricted, methodName, type Rule, type RuledRequest, speaksOf } from "./rule.js";
import { type RankedRule, RuleIndex } from "./rule-index.js";
import { conditionInput, isSessionMethod, ruledRequest } from "./ruled-request.js";

const NO_VALUES: Properties = {};

export interface RulesEngineOptions {
  readonly names: PolicyNames;
  /** Hex SHA-256 over the files that the rules are from. */
  readonly digest: string;
  readonly clock: Clock;
}

/**
 * The engine of our own rules. Everything is denied unless an allow rule speaks of it and no deny rule does; an allow whose condition fails
 * with an error does not allow, a deny whose condition fails with an error denies.
 */
export function createRulesEngine(rules: readonly Rule[], { names, digest, clock }: RulesEngineOptions): PolicyEngine {
  const index = new RuleIndex(rules);
  const ownTrustDomain = names.trustDomain.name;

  const judge = (request: AccessRequest): Verdict | Promise<Verdict> => {
    const ruled = ruledRequest(request);
    const hits = new Hits(request, ruled, clock);
    index.forRequest(ruled, (ranked) => hits.consider(ranked));
    const { pending } = hits;
    return pending.length === 0 ? concluded(ruled, hits) : Promise.all(pending).then(() => concluded(ruled, hits));
  };

  const concluded = (ruled: RuledRequest, hits: Hits): Verdict => {
    const values = hits.values;
    if (hits.deny !== undefined) {
      const { rule } = hits.deny.ranked;
      const conditional = !hits.deniedWhatever && hits.couldAllow;
      return by(rule, { allowed: false, reason: hits.denialReason(hits.deny), values, conditional });
    }
    if (hits.allow !== undefined) {
      const { rule } = hits.allow.ranked;
      return by(rule, { allowed: true, reason: `allowed by ${rule.name}`, values, conditional: false });
    }
    if (ruled.protocol === "mcp" && isSessionMethod(ruled.action)) {
      const opening = reaches(ruled.caller, ruled.service);
      if (opening !== undefined) {
        const reason = `${ruled.action} is part of the session that ${opening.name} allows`;
        return by(opening, { allowed: true, reason, values, conditional: false });
      }
    }
    if (hits.nearMiss !== undefined) {
      const { rule } = hits.nearMiss.ranked;
      return by(rule, { allowed: false, reason: hits.nearMissReason(hits.nearMiss), values, conditional: true });
    }
    return by(undefined, { allowed: false, reason: defaultReason(ruled, ownTrustDomain), values, conditional: false });
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
    name: "rules",
    digest,
    isAsked: () => true,
    judge,
    consider(request, verdict) {
      const ruled = ruledRequest(request);
      const input = conditionInput(request, ruled, new Date(clock.now()));
      return considerRules(rules, ruled, input, verdict);
    },
    couldAllow: ({ caller, service, tool }) =>
      tool === undefined
        ? reaches(identityParts(caller), identityParts(service)) !== undefined
        : couldAllowTool(caller, service, tool),
  };
}

type Found = Pick<Verdict, "allowed" | "reason" | "values" | "conditional">;

function by(rule: Rule | undefined, found: Found): Verdict {
  return {
    ...found,
    rule: rule?.name ?? "default",
    at: rule?.at,
    message: found.allowed ? undefined : rule?.message,
    obligations: [],
  };
}

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
  /** Conditions over arguments so large that they are evaluated elsewhere. */
  readonly pending: Promise<void>[] = [];
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
    if (outcome instanceof Promise) this.pending.push(outcome.then((settled) => this.#note(ranked, settled)));
    else this.#note(ranked, outcome);
  }

  #note(ranked: RankedRule, outcome: ConditionOutcome | undefined): void {
    const hit = { ranked, outcome };
    if (ranked.rule.effect === "deny") {
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

  #outcomeOf(rule: Rule): ConditionOutcome | Promise<ConditionOutcome> | undefined {
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
