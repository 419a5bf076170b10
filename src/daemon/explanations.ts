import { CodedError } from "../coded-error.js";
import type { DeniedCalls, Explanation, ShadowedCalls, ShadowReport } from "../control-api/explanation-routes.js";
import type { DecisionPoint, ShadowOutcome } from "../policy/access-request.js";
import type { DecidedCall } from "../policy/decided-call.js";
import type { PolicySet } from "../policy/policy-set.js";
import { proposalsFor } from "../policy/proposals.js";
import { extentOfRequest } from "../policy/request-digest.js";
import { sparedDenial } from "../policy/spared.js";
import { suggestRule } from "../policy/suggest-rule.js";

/** The latest decisions, each with the decision point that made it, so that it is explained by the very rules that decided. */
export interface Explanations {
  remember(call: DecidedCall, madeBy: PolicyInForce, time: Date): void;
  /** By id or any unique beginning of it. Throws CodedError `decision-unknown`. */
  explain(idOrPrefix: string): Promise<Explanation>;
  /** The denials among them, alike ones together, the latest first. */
  denials(): Promise<DeniedCalls[]>;
  /** Those whose answer will be another one when what is in shadow ends: alike ones together, the latest first. */
  shadowed(): Promise<ShadowedCalls[]>;
}

/** A decision point with the rules that it decides by. */
export interface PolicyInForce {
  readonly point: DecisionPoint;
  readonly set: PolicySet;
}

interface Remembered {
  readonly call: DecidedCall;
  readonly madeBy: PolicyInForce;
  readonly time: Date;
  readonly weight: number;
}

/** Arguments live only here, in memory, and not longer (D20). */
const REMEMBERED = 2_000;
/** Of all of them together: each caller chooses how large its arguments are, and also what is denied is remembered. */
const MOST_WEIGHT = 32 * 1024 * 1024;
/** About what a value takes besides its characters, in bytes. */
const WEIGHT_OF_VALUE = 32;
const MAX_KINDS = 100;

export function createExplanations(): Explanations {
  const remembered = new Map<string, Remembered>();
  // Keeps its place: a new one would first step over all that was removed since the map was last tidied.
  const oldestFirst = remembered.entries();
  let weight = 0;

  function find(idOrPrefix: string): Remembered {
    const exact = remembered.get(idOrPrefix);
    if (exact) return exact;
    const matches = idOrPrefix === "" ? [] : [...remembered].filter(([id]) => id.startsWith(idOrPrefix));
    const [only, another] = matches;
    if (only === undefined) {
      throw new CodedError(
        "decision-unknown",
        `no decision ${JSON.stringify(idOrPrefix)} among the last ${REMEMBERED}`,
        { hint: "agentid calls lists them; older ones are in the record: agentid audit show" },
      );
    }
    if (another !== undefined) {
      throw new CodedError(
        "decision-unknown",
        `${matches.length} decisions begin with ${idOrPrefix}; give more of the id`,
      );
    }
    return only[1];
  }

  return {
    remember(call, madeBy, time) {
      const added = weightOf(call.request);
      remembered.set(call.decision.id, { call, madeBy, time, weight: added });
      weight += added;
      while (remembered.size > REMEMBERED || (weight > MOST_WEIGHT && remembered.size > 1)) {
        const [id, oldest] = oldestFirst.next().value ?? [];
        if (id === undefined || oldest === undefined) return;
        remembered.delete(id);
        weight -= oldest.weight;
      }
    },
    explain: (idOrPrefix) => explained(find(idOrPrefix)),
    async denials() {
      const kinds = alike(({ decision: { allowed, rule }, request }) =>
        allowed || request === undefined ? [] : [{ kind: rule }],
      );
      return await Promise.all(kinds.map(async ({ count, latest }) => ({ count, latest: await explained(latest) })));
    },
    async shadowed() {
      const kinds = alike(({ decision }) =>
        (decision.shadow ?? [])
          .filter(({ differs }) => differs)
          .map((outcome) => {
            const { rule, effect, would, subject = "" } = outcome;
            return { kind: JSON.stringify([rule, effect, would, subject]), outcome };
          }),
      );
      return await Promise.all(
        kinds.map(async ({ count, latest, outcome }) => ({
          count,
          outcome: reported(outcome),
          latest: await explained(latest),
        })),
      );
    },
  };

  /** Calls of one caller for the same thing and of one kind together, those that came last first. */
  function alike<Kind extends { readonly kind: string }>(
    kindsOf: (call: DecidedCall) => readonly Kind[],
  ): readonly (Kind & { readonly count: number; readonly latest: Remembered })[] {
    const found = new Map<string, Kind & { readonly count: number; readonly latest: Remembered }>();
    for (const latest of remembered.values()) {
      const { caller, service, action, target } = latest.call;
      for (const each of kindsOf(latest.call)) {
        const key = JSON.stringify([caller, service, action, target, each.kind]);
        const count = (found.get(key)?.count ?? 0) + 1;
        // Those that come again move to the end.
        found.delete(key);
        found.set(key, { ...each, count, latest });
      }
    }
    return [...found.values()].reverse().slice(0, MAX_KINDS);
  }

  async function explained({ call, madeBy, time }: Remembered): Promise<Explanation> {
    const { decision, request } = call;
    // What the relay refused by itself (no identity, malformed) was never put to the rules; no rule would allow it.
    const considered = request === undefined ? [] : (await madeBy.point.explain(request)).considered;
    const denial = sparedDenial(decision) ?? decision;
    const suggestion = request === undefined ? undefined : suggestRule(request, denial, considered);
    const proposals = request === undefined ? [] : proposalsFor(request, denial, considered, madeBy.set, time);
    return {
      decision: decision.id,
      verdict: decision.allowed ? "ALLOW" : "DENY",
      time: time.toISOString(),
      caller: call.caller,
      callerDetail: call.callerDetail,
      ...(call.evidence === undefined ? {} : { evidence: call.evidence }),
      ...(call.launchedBy === undefined ? {} : { launchedBy: call.launchedBy }),
      service: call.service,
      action: call.action,
      target: call.target,
      // The summary of a tool call begins with the tool's name, which stands in `target` already.
      arguments: call.summary.startsWith(`${call.target} `) ? call.summary.slice(call.target.length + 1) : "",
      rule: decision.rule,
      ...(decision.at === undefined ? {} : { at: decision.at }),
      reason: decision.message === undefined ? decision.reason : `${decision.reason}. ${decision.message}`,
      considered: [...considered],
      ...(decision.shadow === undefined ? {} : { shadow: decision.shadow.map(reported) }),
      ...(suggestion === undefined ? {} : { suggestion }),
      proposals: [...proposals],
    };
  }
}

/** About the bytes that a value keeps in memory; of what is larger than all may be together, no more is looked at than shows that. */
function weightOf(whole: DecidedCall["request"]): number {
  // What is large has been counted in turns.
  const extent = whole && extentOfRequest(whole);
  if (extent !== undefined) return extent.characters + WEIGHT_OF_VALUE * extent.values;
  let weight = 0;
  const pending: unknown[] = [whole];
  while (pending.length > 0 && weight <= MOST_WEIGHT) {
    const value = pending.pop();
    weight += WEIGHT_OF_VALUE;
    if (typeof value === "string") weight += value.length;
    else if (Array.isArray(value)) for (const inner of value) pending.push(inner);
    else if (typeof value === "object" && value !== null) {
      for (const key of Object.keys(value)) {
        weight += key.length;
        pending.push((value as Record<string, unknown>)[key]);
      }
    }
  }
  return weight;
}

function reported({ at, ...outcome }: ShadowOutcome): ShadowReport {
  return { ...outcome, ...(at !== undefined && { at }) };
}
