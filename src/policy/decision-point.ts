import { messageOf } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";
import type {
  AccessRequest,
  ConsideredRule,
  Decision,
  DecisionPoint,
  Explained,
  Properties,
  ShadowOutcome,
} from "./access-request.js";
import { decisionIds } from "./decision-id.js";
import { type Enforcement, enforceable } from "./enforcement.js";
import type { JudgeUse, PolicyEngine, Possibility, Verdict } from "./engine.js";
import { policyDigest } from "./engines/policy-digest.js";
import type { RulesScope } from "./engines/scope.js";
import { questionsAbove } from "./launch-chain.js";
import { createLimitCounts, type LimitCounts } from "./limit-counts.js";
import { distinctObligations } from "./obligations.js";
import { identityParts } from "./pattern.js";
import type { PolicySet } from "./policy-set.js";
import { createRulesEngine } from "./rules-engine.js";
import { holdTaken, settled } from "./settlement.js";
import { shownReason } from "./shown-reason.js";

export interface DecisionPointOptions {
  readonly clock: Clock;
  /** `size` random bytes; node:crypto's `randomBytes` outside of tests. */
  readonly random: (size: number) => Uint8Array;
  /** Besides our rules: Cedar, Rego, other decision points. */
  readonly engines?: readonly PolicyEngine[];
  /** What our rules are asked about; everything if left out. */
  readonly rules?: RulesScope;
  /** What has been counted so far: it goes on over a reload. Left out, counting begins here. */
  readonly limits?: LimitCounts;
}

/**
 * The decision point over one policy set. Of the engines that are asked about a resource all must permit, and each of them also for every agent
 * that launched the caller; where none is asked, and where one fails, the request is denied.
 */
export function createDecisionPoint(
  set: PolicySet,
  { clock, random, engines = [], rules, limits = createLimitCounts(clock) }: DecisionPointOptions,
): DecisionPoint {
  const nextId = decisionIds(random);
  const ownTrustDomain = set.names.trustDomain.name;
  const { names, entities } = set;
  const unscoped = createRulesEngine(set.rules, { names, entities, digest: set.digest, clock, limits });
  const ourRules = rules === undefined ? unscoped : { ...unscoped, isAsked: rules.isAsked };
  const all = [ourRules, ...engines];
  const digest = policyDigest(set.digest, engines, rules?.items);

  const decisionOf = (given: AccessRequest, asked: Asked, id: () => string): Decision | Promise<Decision> => {
    const started = performance.now();
    const decided = (judged: Judged): Decision => {
      const verdict = settled(judged, asked.use);
      const { allowed, retryAfterMs, shadow, draws } = verdict;
      const decision: Decision = {
        id: id(),
        allowed,
        engine: verdict.engine,
        rule: verdict.rule,
        at: verdict.at,
        reason: shownReason(verdict.reason),
        message: allowed ? undefined : verdict.message,
        policyDigest: digest,
        values: verdict.values,
        conditional: verdict.conditional,
        deniedAbove: verdict.deniedAbove,
        obligations: verdict.obligations,
        durationMicros: (performance.now() - started) * 1000,
        ...(retryAfterMs !== undefined && { retryAfterMs }),
        ...(shadow !== undefined && { shadow }),
      };
      if (draws !== undefined && allowed && asked.use === "decide") holdTaken(decision, draws);
      return decision;
    };
    const failed = (thrown: unknown): Decision => decided({ ...DENIED, reason: messageOf(thrown) });
    try {
      const judged = judge(ofItsMethod(given), asked);
      return judged instanceof Promise ? judged.then(decided, failed) : decided(judged);
    } catch (thrown) {
      return failed(thrown);
    }
  };

  const judge = (request: AccessRequest, how: Asked): Judged | Promise<Judged> => {
    const above = questionsAbove(request);
    // Most requests are a question to one engine about one caller.
    if (all.length === 1 && above.length === 0 && ourRules.isAsked(request)) {
      return judgedBy(ourRules, request, how, false);
    }
    const asked = all.filter((engine) => engine.isAsked(request));
    if (asked.length === 0) throw new Error("no engine is asked about this resource");
    const answers = [request, ...above].flatMap((question, index) =>
      asked.map((engine) => judgedBy(engine, question, how, index > 0)),
    );
    return answers.some((answer) => answer instanceof Promise)
      ? Promise.all(answers).then(together)
      : together(answers as readonly Judged[]);
  };

  const judgedBy = (engine: PolicyEngine, question: AccessRequest, { use, enforcement }: Asked, isAbove: boolean) => {
    const judged = (given: Verdict): Judged => {
      const verdict = enforceable(given, enforcement);
      return isAbove ? ofLauncher(question, judgedAs(verdict, engine.name)) : judgedAs(verdict, engine.name);
    };
    const failed = (thrown: unknown): Judged => judged({ ...DENIED, reason: messageOf(thrown) });
    try {
      const verdict = engine.judge(question, use);
      return verdict instanceof Promise ? verdict.then(judged, failed) : judged(verdict);
    } catch (thrown) {
      return failed(thrown);
    }
  };

  const ofLauncher = (question: AccessRequest, judged: Judged): Judged => {
    const { id } = question.subject;
    const { name, trustDomain } = identityParts(id);
    const who = trustDomain === ownTrustDomain ? name : id;
    const values = Object.fromEntries(Object.entries(judged.values).map(([key, value]) => [`${who}: ${key}`, value]));
    const shadow = judged.shadow?.map((outcome) => ({ ...outcome, subject: id }));
    const reason = `${who}, which launched the caller: ${judged.reason}`;
    return { ...judged, deniedAbove: id, reason, values, ...(shadow !== undefined && { shadow }) };
  };

  const could = (caller: string, launchedBy: readonly string[], rest: Omit<Possibility, "caller">): boolean => {
    try {
      const asked = all.filter((engine) => engine.isAsked(anyCall(caller, rest)));
      if (asked.length === 0) return false;
      return [caller, ...launchedBy].every((each) =>
        asked.every((engine) => engine.couldAllow({ caller: each, ...rest })),
      );
    } catch {
      return false;
    }
  };

  return {
    policyDigest: digest,
    sensitive: [...new Set(set.rules.flatMap(({ condition }) => condition?.sensitive ?? []))],
    decide: (request, enforcement) => decisionOf(request, { use: "decide", enforcement }, nextId),
    wouldDecide: (request, enforcement) => decisionOf(request, { use: "explain", enforcement }, () => ""),
    explain(request) {
      const decision = decisionOf(request, { use: "explain", enforcement: undefined }, () => "");
      return decision instanceof Promise
        ? decision.then((settled) => explained(settled, request))
        : explained(decision, request);
    },
    couldAllowTool: (caller, service, tool, launchedBy = []) => could(caller, launchedBy, { service, tool }),
    couldReach: (caller, service, launchedBy = []) => could(caller, launchedBy, { service }),
    mustAskToReach: (service) =>
      engines.some((engine) => engine.cannotTell === true && engine.isAsked(anyCall("", { service }))),
  };

  function explained(decision: Decision, request: AccessRequest): Explained | Promise<Explained> {
    const parts = consideredFor(request);
    return parts.some((part) => part instanceof Promise)
      ? Promise.all(parts).then((considered) => ({ decision, considered: considered.flat() }))
      : { decision, considered: (parts as readonly (readonly ConsideredRule[])[]).flat() };
  }

  function consideredFor(
    given: AccessRequest,
  ): readonly (readonly ConsideredRule[] | Promise<readonly ConsideredRule[]>)[] {
    try {
      const request = ofItsMethod(given);
      return [request, ...questionsAbove(request)].flatMap((question, index) =>
        all
          .filter((engine) => engine.isAsked(question))
          .map((engine) => consideredBy(engine, question, index === 0 ? undefined : question.subject.id)),
      );
    } catch {
      return [];
    }
  }
}

/** A tool call is about a tool, every other message about its server, whatever the request calls it: scopes and engines must all take it for the same. */
function ofItsMethod(request: AccessRequest): AccessRequest {
  const { action, resource } = request;
  const type = resource?.type;
  if (type !== "mcp" && type !== "mcp-tool") return request;
  const meant = action?.name === "tools/call" ? "mcp-tool" : "mcp";
  return type === meant ? request : { ...request, resource: { ...resource, type: meant } };
}

/** Nobody's rules speak of a request that cannot be read; the decision's reason says what is wrong with it. */
function consideredBy(
  engine: PolicyEngine,
  question: AccessRequest,
  above: string | undefined,
): readonly ConsideredRule[] | Promise<readonly ConsideredRule[]> {
  const about = (rules: readonly ConsideredRule[]) =>
    above === undefined ? rules : rules.map((rule) => ({ ...rule, subject: above }));
  const nothing = (): readonly ConsideredRule[] => [];
  try {
    const verdict = engine.judge(question, "explain");
    if (verdict instanceof Promise) {
      return verdict.then((settled) => engine.consider(question, settled)).then(about, nothing);
    }
    const rules = engine.consider(question, verdict);
    return rules instanceof Promise ? rules.then(about, nothing) : about(rules);
  } catch {
    return [];
  }
}

/** What an engine is asked by, where only its scope counts. */
function anyCall(caller: string, { service, tool }: Omit<Possibility, "caller">): AccessRequest {
  return {
    subject: { type: "spiffe", id: caller },
    action: { name: tool === undefined ? "initialize" : "tools/call" },
    resource:
      tool === undefined ? { type: "mcp", id: service } : { type: "mcp-tool", id: service, properties: { tool } },
  };
}

interface Asked {
  readonly use: JudgeUse;
  readonly enforcement: Enforcement | undefined;
}

interface Judged extends Verdict {
  readonly engine: string;
  /** The agent above the caller that was judged; the caller itself where undefined. */
  readonly deniedAbove: string | undefined;
  readonly retryAfterMs?: number;
}

function judgedAs(verdict: Verdict, engine: string): Judged {
  const { allowed, rule, at, reason, message, values, conditional, obligations, draws, shadow } = verdict;
  const judged = {
    allowed,
    engine,
    rule,
    at,
    reason,
    message,
    values,
    conditional,
    obligations,
    deniedAbove: undefined,
  };
  if (draws === undefined && shadow === undefined) return judged;
  return { ...judged, ...(draws !== undefined && { draws }), ...(shadow !== undefined && { shadow }) };
}

/** All must permit. Of several denials one that no other arguments would help counts, else the nearest to the caller. */
function together(verdicts: readonly Judged[]): Judged {
  const [own] = verdicts;
  if (own === undefined) throw new Error("no engine has judged");
  if (verdicts.length === 1) return own;
  const denials = verdicts.filter(({ allowed }) => !allowed);
  const values: Properties = Object.assign({}, ...verdicts.map((verdict) => verdict.values));
  const decisive = denials.find(({ conditional }) => !conditional) ?? denials[0];
  const shadow = shadowOf(verdicts, denials.length);
  const shared = { values, ...(shadow.length > 0 && { shadow }) };
  if (decisive !== undefined) return { ...decisive, ...shared };
  const draws = verdicts.flatMap((verdict) => verdict.draws ?? []);
  return {
    ...own,
    ...shared,
    obligations: distinctObligations(verdicts.flatMap(({ obligations }) => obligations)),
    ...(draws.length > 0 && { draws }),
  };
}

/** The answer would be another one only where no other denial stands beside. */
function shadowOf(verdicts: readonly Judged[], denials: number): readonly ShadowOutcome[] {
  return verdicts.flatMap(({ allowed, shadow = [] }) =>
    shadow.map((each) => ({ ...each, differs: each.differs && denials === (allowed ? 0 : 1) })),
  );
}

const DENIED: Judged = {
  allowed: false,
  engine: "",
  rule: "default",
  at: undefined,
  reason: "",
  message: undefined,
  values: {},
  conditional: false,
  obligations: [],
  deniedAbove: undefined,
};
