import type { Clock } from "../platform/clock.js";
import type { AccessRequest, Obligation, ShadowOutcome } from "./access-request.js";
import { considerRules } from "./considered-rules.js";
import type { JudgeUse, PolicyEngine, RuleDraw, Verdict } from "./engine.js";
import type { Entities } from "./entities.js";
import { isKept } from "./kept-request.js";
import { createLimitCounts, type LimitCounts } from "./limit-counts.js";
import { distinctObligations } from "./obligations.js";
import { type IdentityParts, identityParts } from "./pattern.js";
import { entryOf, knownLabels, type PolicyNames } from "./policy-names.js";
import { RequestFacts } from "./request-facts.js";
import {
  differenceOf,
  isUnconditional,
  isUnrestricted,
  methodName,
  type Rule,
  type RuledRequest,
  speaksOf,
} from "./rule.js";
import { type Hit, isGuarded, RuleHits } from "./rule-hits.js";
import { type RankedRule, RuleIndex } from "./rule-index.js";
import { conditionInput, isSessionMethod, ruledRequest } from "./ruled-request.js";

export interface RulesEngineOptions {
  readonly names: PolicyNames;
  readonly entities: Entities;
  /** Hex SHA-256 over the files that the rules are from. */
  readonly digest: string;
  readonly clock: Clock;
  readonly limits?: LimitCounts;
}

/**
 * The engine of our own rules. Everything is denied unless an allow rule speaks of it and no deny rule does; an allow whose condition fails
 * with an error does not allow, a deny whose condition fails with an error denies. A rule in shadow is reported and decides nothing.
 */
export function createRulesEngine(rules: readonly Rule[], options: RulesEngineOptions): PolicyEngine {
  const { names, entities, digest, clock } = options;
  const index = new RuleIndex(rules);
  const ownTrustDomain = names.trustDomain.name;
  const labels = knownLabels(names);
  const shadowed = new Set(names.shadowed);
  const limits = options.limits ?? createLimitCounts(clock);

  /** Verdicts on kept requests, where nothing else was looked at: no time, no counts, no entities. */
  const standing = new WeakMap<AccessRequest, Verdict>();

  const judge = (request: AccessRequest, use: JudgeUse): Verdict | Promise<Verdict> => {
    const stands = standing.get(request);
    if (stands !== undefined) return stands;
    const ruled = ruledRequest(request);
    const hits = new RuleHits(request, ruled, factsOf(request), labels, limits);
    index.forRequest(ruled, hits.consider);
    if (hits.pending === undefined) {
      const verdict = concluded(ruled, hits, use);
      if (hits.restsOnRequest && isKept(request)) standing.set(request, verdict);
      return verdict;
    }
    return hits.settled().then(() => concluded(ruled, hits, use));
  };

  const factsOf = (request: AccessRequest): RequestFacts => {
    const facts = new RequestFacts(request, entities, clock.now());
    const { context } = request;
    // Whatever the rules read: a request that cannot be read is denied by all sets of rules alike.
    if (context?.user !== undefined) void facts.user;
    if (context?.actors !== undefined) void facts.actors;
    return facts;
  };

  const concluded = (ruled: RuledRequest, hits: RuleHits, use: JudgeUse): Verdict => {
    const enforced = enforcedBy(ruled, hits);
    const spared = isSpared(ruled, hits, enforced) ? withGuards(sparedFrom(enforced), hits, undefined) : enforced;
    const shadow = hits.shadowed === undefined ? NO_SHADOW : shadowOutcomes(hits.shadowed, hits, spared, use);
    const all = spared.shadow === undefined ? shadow : [...spared.shadow, ...shadow];
    return all.length === 0 ? spared : { ...spared, shadow: all };
  };

  const enforcedBy = (ruled: RuledRequest, hits: RuleHits): Verdict => {
    const { values } = hits;
    if (hits.deny !== undefined) {
      const { rule } = hits.deny.ranked;
      const conditional = !hits.deniedWhatever && hits.couldAllow;
      return by(rule, { allowed: false, reason: hits.denialReason(hits.deny), values, conditional });
    }
    const allow = hits.allow();
    if (allow !== undefined) {
      const { rule } = allow.ranked;
      const found = { allowed: true, reason: `allowed by ${rule.name}`, values, conditional: false };
      return withGuards(by(rule, found), hits, allow);
    }
    if (ruled.protocol === "mcp" && ruled.caller !== undefined && isSessionMethod(ruled.action)) {
      const opening = ruled.service && reaches(ruled.caller, ruled.service);
      if (opening !== undefined) {
        const reason = `${ruled.action} is part of the session that ${opening.name} allows`;
        return withGuards(by(opening, { allowed: true, reason, values, conditional: false }), hits, undefined);
      }
    }
    if (hits.nearMiss !== undefined) {
      const { rule } = hits.nearMiss.ranked;
      return by(rule, { allowed: false, reason: hits.nearMissReason(hits.nearMiss), values, conditional: true });
    }
    return by(undefined, { allowed: false, reason: defaultReason(ruled, ownTrustDomain), values, conditional: false });
  };

  /** An identity in shadow is let do what no rule allows; a deny is a deny. */
  const isSpared = ({ caller }: RuledRequest, hits: RuleHits, { allowed }: Verdict): boolean =>
    !allowed && hits.deny === undefined && caller !== undefined && isInShadow(caller);

  /** The first allow rule by name that speaks of anything between the two, unless a deny rule forbids all of it. */
  const reaches = (caller: IdentityParts, service: IdentityParts): Rule | undefined => {
    let first: RankedRule | undefined;
    let forbidden = false;
    index.between(caller.id, service.id, (ranked) => {
      const { rule } = ranked;
      if (rule.shadow || rule.effect === "match" || !isBetween(rule, caller, service)) return;
      if (rule.effect === "deny") forbidden ||= isUnrestricted(rule);
      else if (first === undefined || ranked.rank < first.rank) first = ranked;
    });
    return forbidden ? undefined : first?.rule;
  };

  const isForbidden = (caller: IdentityParts, service: IdentityParts): boolean => {
    let forbidden = false;
    index.between(caller.id, service.id, ({ rule }) => {
      if (rule.effect !== "deny" || rule.shadow || !isBetween(rule, caller, service)) return;
      forbidden ||= isUnrestricted(rule);
    });
    return forbidden;
  };

  const couldReach = (caller: IdentityParts, service: IdentityParts): boolean =>
    isInShadow(caller) ? !isForbidden(caller, service) : reaches(caller, service) !== undefined;

  const isInShadow = (caller: IdentityParts): boolean =>
    shadowed.size > 0 && caller.trustDomain === ownTrustDomain && shadowed.has(entryOf(caller.name, names));

  const couldAllowTool = (caller: IdentityParts, service: IdentityParts, tool: string): boolean => {
    const ruled = toolRequest(caller, service, tool);
    let allowed = isInShadow(caller);
    let denied = false;
    index.forRequest(ruled, ({ rule }) => {
      if (rule.shadow || rule.effect === "match" || differenceOf(rule, ruled) !== undefined) return;
      if (rule.effect === "allow") allowed = true;
      else denied ||= isUnconditional(rule);
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
      const facts = factsOf(request);
      const input = conditionInput(request, ruled, facts, labels);
      return considerRules(rules, ruled, facts, input, verdict);
    },
    couldAllow: ({ caller, service, tool }) =>
      tool === undefined
        ? couldReach(identityParts(caller), identityParts(service))
        : couldAllowTool(identityParts(caller), identityParts(service), tool),
  };
}

function isBetween(rule: Rule, caller: IdentityParts, service: IdentityParts): boolean {
  return (
    (rule.subjectType ?? "spiffe") === "spiffe" &&
    (rule.resourceType === undefined || OF_SERVICES.has(rule.resourceType)) &&
    speaksOf(rule.from, caller) &&
    speaksOf(rule.to, service)
  );
}

const OF_SERVICES: ReadonlySet<string> = new Set(["http", "mcp", "mcp-tool", "tcp"]);

function toolRequest(caller: IdentityParts, service: IdentityParts, tool: string): RuledRequest {
  return {
    subjectType: "spiffe",
    subjectId: caller.id,
    caller,
    resourceType: "mcp-tool",
    resourceId: service.id,
    service,
    protocol: "mcp",
    action: "tools/call",
    tool,
    path: undefined,
    pathSegments: [],
    uri: undefined,
    prompt: undefined,
  };
}

type Found = Pick<Verdict, "allowed" | "reason" | "values" | "conditional">;

const NO_OBLIGATIONS: readonly Obligation[] = [];
const NO_SHADOW: readonly ShadowOutcome[] = [];

function by(rule: Rule | undefined, { allowed, reason, values, conditional }: Found): Verdict {
  return {
    allowed,
    rule: rule?.name ?? "default",
    at: rule?.at,
    reason,
    message: allowed ? undefined : rule?.message,
    values,
    conditional,
    obligations: NO_OBLIGATIONS,
  };
}

/** What an allow takes from limits, and what it obliges to: its own, and that of every `match` rule that speaks of the request. */
function withGuards(verdict: Verdict, hits: RuleHits, allow: Hit | undefined): Verdict {
  const own = allow !== undefined && isGuarded(allow.ranked.rule) ? [allow.ranked.rule] : [];
  const binding = hits.guards === undefined ? own : [...own, ...hits.guards.map(({ ranked }) => ranked.rule)];
  if (binding.length === 0) return verdict;
  const draws: RuleDraw[] = [];
  const required: Obligation[] = [];
  const requiredBy = binding.filter(({ requires }) => requires.length > 0);
  for (const rule of binding) {
    const draw = hits.drawOf(rule);
    if (draw !== undefined) draws.push(draw);
    required.push(...rule.requires);
  }
  const obligations = required.length === 0 ? NO_OBLIGATIONS : distinctObligations(required);
  const obliged = required.length === 0 ? { ...verdict, obligations } : { ...verdict, obligations, requiredBy };
  return draws.length === 0 ? obliged : { ...obliged, draws };
}

function sparedFrom(denial: Verdict): Verdict {
  const { rule, at, reason } = denial;
  return {
    ...denial,
    allowed: true,
    reason: `let through in shadow: ${reason}`,
    message: undefined,
    conditional: false,
    shadow: [{ rule, at, effect: "allow", would: "deny", differs: true, reason }],
  };
}

/** What the rules in shadow would have made of it. They count on limits of their own, or these would never be empty. */
function shadowOutcomes(
  shadowed: readonly Hit[],
  hits: RuleHits,
  enforced: Verdict,
  use: JudgeUse,
): readonly ShadowOutcome[] {
  const ordered = shadowed.toSorted((one, other) => one.ranked.rank - other.ranked.rank);
  return ordered.flatMap((hit): readonly ShadowOutcome[] => {
    const { rule } = hit.ranked;
    const base = { rule: rule.name, at: rule.at, effect: rule.effect };
    if (rule.effect === "deny") {
      return [{ ...base, would: "deny", differs: enforced.allowed, reason: hits.denialReason(hit) }];
    }
    const draw = hits.drawOf(rule);
    const waitMs = draw?.waitMs() ?? 0;
    // Neither in force nor in shadow does a limit count what is denied anyway.
    const counts = rule.effect === "match" ? enforced.allowed : hits.deny === undefined;
    if (use === "decide" && draw !== undefined && counts) {
      if (waitMs > 0) draw.refuse();
      else draw.take();
    }
    if (rule.effect === "allow") {
      const allows = hits.deny === undefined && waitMs === 0;
      const reason = allows ? `allowed by ${rule.name}` : `${rule.name} would not help`;
      return [{ ...base, would: allows ? "allow" : "deny", differs: allows && !enforced.allowed, reason }];
    }
    if (waitMs > 0) {
      const reason = `${rule.name} allows ${rule.limit?.text ?? "nothing"}`;
      return [{ ...base, would: "deny", differs: enforced.allowed, reason }];
    }
    if (rule.requires.length === 0) return [];
    const reason = `${rule.name} requires ${rule.requires.map(({ type }) => type).join(", ")}`;
    return [{ ...base, would: "require", differs: enforced.allowed, reason }];
  });
}

function defaultReason(ruled: RuledRequest, ownTrustDomain: string): string {
  const { caller, service, action, path, tool } = ruled;
  const who =
    caller?.trustDomain === ownTrustDomain ? caller.name : (caller?.id ?? `${ruled.subjectType} ${ruled.subjectId}`);
  const what = tool ?? `${methodName(action)}${path === undefined ? "" : ` ${path}`}`;
  return service === undefined
    ? `no rule allows ${who} ${what} of ${ruled.resourceType} ${ruled.resourceId}`
    : `no rule allows ${who} ${what} at ${service.name}`;
}
