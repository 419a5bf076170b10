import { createHash } from "node:crypto";
import type { JsonObject } from "../http/strict-json.js";
import type { Pause } from "../platform/turns.js";
import type { Decision, DecisionPoint } from "../policy/access-request.js";
import { enforcementOf, inWire } from "./decision-answer.js";
import { grounded } from "./known-facts.js";
import { bindingOf, type PageTokens } from "./page-token.js";
import type { AuthzenParts, EnforcementPoint } from "./parts.js";
import { actionOf, contextOf, type Quadruple, resourceOf, subjectOf, wantedOf } from "./request-shape.js";
import { createSlices } from "./slices.js";
import { actionsOf, type Candidate, isKnown, resourcesOf, subjectsOf } from "./universe.js";

export type SearchKind = "subject" | "resource" | "action";

/** One page of a search (AuthZEN Authorization API 1.0, Search APIs). */
export interface FoundPage {
  readonly page: { readonly next_token: string; readonly count: number };
  readonly results: readonly Record<string, unknown>[];
}

/** A page may be shorter than asked for: the next one goes on where this one stopped. */
const MAX_MS_A_PAGE = 2_000;

/** One entity or action that is asked about, and how the answer names it. */
interface Trial {
  readonly question: Quadruple;
  readonly result: Record<string, unknown>;
}

/** What a search ranges over, in a fixed order. */
interface Range {
  readonly size: number;
  trial(index: number): Trial;
  /** Differs when what is ranged over differs and the policies' digest does not say so. */
  readonly digest: string;
}

/** Who searches, by what, and for how long. */
interface Searching {
  readonly point: EnforcementPoint;
  readonly parts: AuthzenParts;
  readonly tokens: PageTokens;
  readonly isWanted: () => boolean;
  /** Of a long body. */
  readonly pause: Pause | undefined;
}

/**
 * Who, or what, or which actions are permitted: each candidate is put to the decision point as an evaluation would put it, so that a search agrees
 * with evaluations. The event loop is not held: the work is done in slices. Throws Refusal (400).
 */
export async function search(kind: SearchKind, body: JsonObject, searching: Searching): Promise<FoundPage> {
  const { point, parts, tokens, isWanted, pause } = searching;
  const range = rangeOf(kind, body, parts);
  const decisionPoint = parts.decisionPoint();
  const digests = [decisionPoint.policyDigest, range.digest];
  const binding = await bindingOf(kind, point.name, body, digests, pause);
  const { from, limit } = tokens.pageOf(body, binding);
  const results: Record<string, unknown>[] = [];
  const turn = createSlices(pause);
  const begun = performance.now();
  let at = from;
  for (; at < range.size && results.length < limit; at += 1) {
    const answer = tried(range.trial(at), decisionPoint, point, parts);
    const found = answer instanceof Promise ? await answer : answer;
    if (found !== undefined) results.push(found);
    const wait = turn();
    if (wait !== undefined) await wait;
    if (!isWanted()) break;
    // By one set of policies: the first page begins anew, a later one's token is good no more.
    if (parts.decisionPoint() !== decisionPoint) return await search(kind, body, searching);
    if (performance.now() - begun > MAX_MS_A_PAGE) {
      at += 1;
      break;
    }
  }
  const next_token = at < range.size ? tokens.tokenFor({ from: at, limit }, binding) : "";
  // "It is RECOMMENDED that the page object be the first key in the response."
  return { page: { next_token, count: results.length }, results };
}

const NOTHING: Range = {
  size: 0,
  digest: "",
  trial() {
    throw new RangeError("nothing to try");
  },
};

/** A search about somebody or something unknown finds nothing. */
function rangeOf(kind: SearchKind, body: JsonObject, parts: AuthzenParts): Range {
  const context = contextOf(body);
  const more = context === undefined ? {} : { context };
  if (kind === "subject") {
    const { type, properties } = wantedOf(body, "subject");
    const [action, resource] = [actionOf(body), resourceOf(body)];
    if (!isKnown(resource, parts)) return NOTHING;
    return range(subjectsOf(type, parts), ({ id }) => ({
      question: { subject: { type, id, ...(properties && { properties }) }, action, resource, ...more },
      result: { type, id },
    }));
  }
  const subject = subjectOf(body);
  if (kind === "action") {
    const resource = resourceOf(body);
    if (!isKnown(subject, parts) || !isKnown(resource, parts)) return NOTHING;
    return range(actionsOf(resource.type, parts), (name) => ({
      question: { subject, action: { name }, resource, ...more },
      result: { name },
    }));
  }
  const action = actionOf(body);
  const { type, properties } = wantedOf(body, "resource");
  if (!isKnown(subject, parts)) return NOTHING;
  return range(resourcesOf(type, parts), (candidate) => {
    const all = candidate.properties || properties ? { properties: { ...properties, ...candidate.properties } } : {};
    const resource = { type, id: candidate.id, ...all };
    return { question: { subject, action, resource, ...more }, result: { ...candidate } };
  });
}

function range<Member extends string | Candidate>(
  members: readonly Member[],
  trialOf: (member: Member) => Trial,
): Range {
  const digest = createHash("sha256");
  for (const member of members) digest.update(JSON.stringify(member));
  return {
    size: members.length,
    digest: digest.digest("base64url"),
    trial: (index) => trialOf(members[index] as Member),
  };
}

function tried(
  { question, result }: Trial,
  decisionPoint: DecisionPoint,
  point: EnforcementPoint,
  parts: AuthzenParts,
): Found | Promise<Found> {
  const { request, refusal } = grounded(question, point, parts);
  if (refusal !== undefined) return undefined;
  const made = decisionPoint.wouldDecide(request, enforcementOf(request));
  return made instanceof Promise ? made.then((decision) => foundBy(decision, result)) : foundBy(made, result);
}

type Found = Record<string, unknown> | undefined;

function foundBy({ allowed, obligations }: Decision, result: Record<string, unknown>): Found {
  if (!allowed) return undefined;
  // Obligations profile: those of one result stand beside it.
  return obligations.length === 0 ? result : { ...result, obligations: obligations.map(inWire) };
}
