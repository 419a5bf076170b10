import type { AccessRequest, Properties } from "./access-request.js";
import type { Condition, ConditionInput, ConditionOutcome } from "./condition.js";
import { recordedValue } from "./condition-values.js";
import type { RuleDraw } from "./engine.js";
import type { LimitKey } from "./limit.js";
import type { LimitCounts } from "./limit-counts.js";
import type { KnownLabels } from "./policy-names.js";
import type { RequestFacts } from "./request-facts.js";
import { differenceOf, isUnconditional, type Rule, type RuledRequest } from "./rule.js";
import type { RankedRule } from "./rule-index.js";
import { conditionInput } from "./ruled-request.js";
import type { Unmet } from "./term.js";

const NO_VALUES: Properties = {};

/** A rule that speaks of the request. */
export interface Hit {
  readonly ranked: RankedRule;
  /** What does not hold of its terms; its condition has then not been looked at. */
  readonly unmet: Unmet | undefined;
  readonly outcome: ConditionOutcome | undefined;
}

/** Collects, in any order, what the rules say of one request; of several rules of a kind the first by name counts. */
export class RuleHits {
  deny: Hit | undefined;
  /** An allow that only its terms or its condition kept from allowing. */
  nearMiss: Hit | undefined;
  /** Some deny speaks of the request whatever its arguments: no others would help. */
  deniedWhatever = false;
  couldAllow = false;
  values: Properties = NO_VALUES;
  /** `match` rules: their limits and obligations hold whichever rule allows. */
  guards: Hit[] | undefined;
  /** Rules in shadow that speak of the request. */
  shadowed: Hit[] | undefined;
  /** No rule that speaks of the request asked for anything besides: the same request has the same verdict at any time. */
  restsOnRequest = true;
  /** Conditions that are evaluated elsewhere. */
  pending: Promise<void>[] | undefined;
  /** Those conditions: what they read may be large. */
  #unread: Condition[] | undefined;
  readonly #request: AccessRequest;
  readonly #ruled: RuledRequest;
  readonly #facts: RequestFacts;
  readonly #labels: KnownLabels;
  readonly #limits: LimitCounts;
  /** An allow that asks nothing further; else those that do. */
  #allow: Hit | undefined;
  #guardedAllows: Hit[] | undefined;
  #draws: Map<string, RuleDraw> | undefined;
  #input: ConditionInput | undefined;

  constructor(
    request: AccessRequest,
    ruled: RuledRequest,
    facts: RequestFacts,
    labels: KnownLabels,
    limits: LimitCounts,
  ) {
    this.#request = request;
    this.#ruled = ruled;
    this.#facts = facts;
    this.#labels = labels;
    this.#limits = limits;
  }

  readonly consider = (ranked: RankedRule): void => {
    const { rule } = ranked;
    if (differenceOf(rule, this.#ruled) !== undefined) return;
    if (rule.terms.length > 0 || rule.condition !== undefined || rule.limit !== undefined) this.restsOnRequest = false;
    const unmet = rule.terms.length === 0 ? undefined : this.#unmetTerm(rule);
    if (unmet !== undefined || rule.condition === undefined) {
      this.#note(ranked, unmet, undefined);
      return;
    }
    const { condition } = rule;
    const input = this.#conditionInput();
    const outcome = condition.evaluate(input);
    if (outcome instanceof Promise) {
      this.pending ??= [];
      this.pending.push(outcome.then((settled) => this.#note(ranked, undefined, settled)));
      this.#unread ??= [];
      this.#unread.push(condition);
      return;
    }
    this.values = { ...this.values, ...condition.valuesUsed(input) };
    this.#note(ranked, undefined, outcome);
  };

  /** When all that is evaluated elsewhere is: then what it read is written out. */
  async settled(): Promise<void> {
    await Promise.all(this.pending ?? []);
    for (const condition of this.#unread ?? []) {
      this.values = { ...this.values, ...(await condition.valuesUsedInTurns(this.#conditionInput())) };
    }
  }

  /**
   * The allow that asks least: one that gives at once before one whose limit makes wait, one without obligations before one with them, one
   * without a limit before one with it, and then the first by name. So one more allow never takes anything away.
   */
  allow(): Hit | undefined {
    if (this.#allow !== undefined) return this.#allow;
    if (this.#guardedAllows?.length === 1) return this.#guardedAllows[0];
    const costs = this.#guardedAllows?.map((hit) => ({ hit, costs: this.#costsOf(hit.ranked) }));
    return costs?.toSorted((one, other) => byCosts(one.costs, other.costs))[0]?.hit;
  }

  denialReason({ ranked: { rule }, outcome }: Hit): string {
    if (rule.condition === undefined || outcome === undefined) return `denied by ${rule.name}`;
    return `denied by ${rule.name}: ${rule.condition.describe(this.#conditionInput(), outcome)}`;
  }

  nearMissReason({ ranked: { rule }, unmet, outcome }: Hit): string {
    if (unmet !== undefined) return `${rule.name} needs ${unmet.detail}`;
    if (rule.condition === undefined || outcome === undefined) return `${rule.name} does not allow it`;
    return `${rule.name} needs ${rule.condition.describe(this.#conditionInput(), outcome)}`;
  }

  /** What the request takes from the rule's limit. */
  drawOf(rule: Rule): RuleDraw | undefined {
    const { limit, name, at, message } = rule;
    if (limit === undefined) return undefined;
    const known = this.#draws?.get(name);
    if (known !== undefined) return known;
    const owner = `${this.#ruled.subjectType} ${this.#ruled.subjectId}`;
    const values = limit.keys.map((key) => this.#countedBy(key, owner));
    const { key, waitMs, take, giveBack, refuse } = this.#limits.draw(name, limit, owner, values);
    const ruled: RuleDraw = { key, waitMs, take, giveBack, refuse, rule: name, at, message, text: limit.text };
    this.#draws ??= new Map();
    this.#draws.set(name, ruled);
    return ruled;
  }

  #countedBy(key: LimitKey, owner: string): string {
    switch (key) {
      case "identity":
        return owner;
      case "tool":
        return this.#ruled.tool ?? this.#ruled.action;
      case "service":
        return `${this.#ruled.service === undefined ? this.#ruled.resourceType : ""} ${this.#ruled.resourceId}`;
      case "user":
        // Calls for nobody in particular are counted together.
        return this.#facts.user === undefined ? "" : ` ${this.#facts.user.id}`;
    }
  }

  #note(ranked: RankedRule, unmet: Unmet | undefined, outcome: ConditionOutcome | undefined): void {
    const hit = { ranked, unmet, outcome };
    const { rule } = ranked;
    const holds = unmet === undefined && (outcome === undefined || outcome.outcome === "true");
    // An error never lets through, and never spares.
    const strikes = holds || (unmet === undefined && outcome?.outcome === "error");
    if (rule.shadow) {
      if (rule.effect === "allow" ? holds : strikes) {
        this.shadowed ??= [];
        this.shadowed.push(hit);
      }
      return;
    }
    if (rule.effect === "allow") this.#noteAllow(hit, holds);
    else if (!strikes) return;
    else if (rule.effect === "deny") {
      this.deniedWhatever ||= isUnconditional(rule);
      this.deny = first(this.deny, hit);
    } else {
      this.guards ??= [];
      this.guards.push(hit);
    }
  }

  #noteAllow(hit: Hit, holds: boolean): void {
    this.couldAllow = true;
    if (!holds) this.nearMiss = first(this.nearMiss, hit);
    else if (!isGuarded(hit.ranked.rule)) this.#allow = first(this.#allow, hit);
    else {
      this.#guardedAllows ??= [];
      this.#guardedAllows.push(hit);
    }
  }

  #costsOf({ rule, rank }: RankedRule): readonly number[] {
    const wait = this.drawOf(rule)?.waitMs() ?? 0;
    return [wait, rule.requires.length, rule.limit === undefined ? 0 : 1, rank];
  }

  #unmetTerm({ terms }: Rule): Unmet | undefined {
    for (const term of terms) {
      const value = term.value(this.#facts);
      if (value !== undefined) this.values = { ...this.values, [term.kind]: recordedValue(value) };
      const unmet = term.unmet(this.#facts);
      if (unmet !== undefined) return unmet;
    }
    return undefined;
  }

  #conditionInput(): ConditionInput {
    this.#input ??= conditionInput(this.#request, this.#ruled, this.#facts, this.#labels);
    return this.#input;
  }
}

function first(known: Hit | undefined, other: Hit): Hit {
  return known === undefined || other.ranked.rank < known.ranked.rank ? other : known;
}

function byCosts(one: readonly number[], other: readonly number[]): number {
  const at = one.findIndex((cost, index) => cost !== other[index]);
  return at === -1 ? 0 : (one[at] ?? 0) - (other[at] ?? 0);
}

/** An allow that does not let through by itself. */
export function isGuarded({ limit, requires }: Rule): boolean {
  return limit !== undefined || requires.length > 0;
}
