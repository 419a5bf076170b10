import type { Refusal } from "../http/refusal.js";
import { Refusal as Refused } from "../http/refusal.js";
import type { Json, JsonObject } from "../http/strict-json.js";
import type { Pause } from "../platform/turns.js";
import type { Decision } from "../policy/access-request.js";
import { digestInTurns } from "../policy/request-digest.js";
import { withdraw } from "../policy/settlement.js";
import { type Answered, answerOf, enforcementOf } from "./decision-answer.js";
import { recordDecision, refusedHere } from "./decision-record.js";
import { grounded } from "./known-facts.js";
import type { AuthzenParts, EnforcementPoint } from "./parts.js";
import { invalid, isObject, type Quadruple, questionOf } from "./request-shape.js";
import { createSlices } from "./slices.js";

/**
 * Access Evaluation: one question, one answer. The decision is on record before this resolves. What came in a long body is worked on in turns, with a `pause`
 * between them.
 */
export async function evaluate(question: Quadruple, point: EnforcementPoint, parts: AuthzenParts, pause?: Pause) {
  const answered = decided(question, point, parts, pause);
  const { request, decision } = answered instanceof Promise ? await answered : answered;
  try {
    await recordDecision(parts, point, request, decision);
  } catch (thrown) {
    withdraw(decision);
    throw thrown;
  }
  return answerOf(decision);
}

const SEMANTICS = ["execute_all", "deny_on_first_deny", "permit_on_first_permit"] as const;
type Semantic = (typeof SEMANTICS)[number];

const MAX_EVALUATIONS = 1_000;

/**
 * Access Evaluations: many questions in one request, answered in their order. What is wrong with one of them is that one's answer. A request without
 * questions is a single evaluation. Throws Refusal (400).
 */
export async function evaluateAll(body: JsonObject, point: EnforcementPoint, parts: AuthzenParts, pause?: Pause) {
  const { evaluations } = body;
  if (evaluations === undefined) return evaluate(questionOf(body), point, parts, pause);
  if (!Array.isArray(evaluations)) throw invalid("evaluations must be an array");
  const semantic = semanticOf(body.options);
  const items: readonly Json[] = evaluations;
  if (items.length === 0) return evaluate(questionOf(body), point, parts, pause);
  if (items.length > MAX_EVALUATIONS) throw invalid(`more than ${MAX_EVALUATIONS} evaluations in one request`);
  const answers: Record<string, unknown>[] = [];
  const recorded: Promise<void>[] = [];
  const decisions: Decision[] = [];
  const turn = createSlices(pause);
  const asked: Asked = { point, parts, pause };
  try {
    try {
      for (const item of items) {
        const answer = await oneOf(body, item, asked, { recorded, decisions });
        answers.push(answer);
        if (semantic === "deny_on_first_deny" && answer.decision === false) break;
        if (semantic === "permit_on_first_permit" && answer.decision === true) break;
        const wait = turn();
        if (wait !== undefined) await wait;
      }
    } finally {
      // All of them, also where one could not be written: none may fail unseen.
      await Promise.allSettled(recorded);
    }
    await Promise.all(recorded);
  } catch (thrown) {
    // The one that could not be written takes the answers of all others with it, and so does a caller that has gone.
    for (const decision of decisions) withdraw(decision);
    throw thrown;
  }
  return { evaluations: answers };
}

interface Asked {
  readonly point: EnforcementPoint;
  readonly parts: AuthzenParts;
  readonly pause: Pause | undefined;
}

async function oneOf(
  defaults: JsonObject,
  item: Json,
  { point, parts, pause }: Asked,
  { recorded, decisions }: { readonly recorded: Promise<void>[]; readonly decisions: Decision[] },
): Promise<Record<string, unknown>> {
  let question: Quadruple;
  try {
    question = questionOf(withDefaults(defaults, item));
  } catch (thrown) {
    if (!(thrown instanceof Refused)) throw thrown;
    return itemError(thrown);
  }
  const answered = decided(question, point, parts, pause);
  const { request, decision } = answered instanceof Promise ? await answered : answered;
  const record = recordDecision(parts, point, request, decision);
  // Waited for together at the end; until then a failure is nobody's unhandled rejection.
  record.catch(() => undefined);
  recorded.push(record);
  decisions.push(decision);
  return answerOf(decision);
}

/**
 * A member of an item takes the place of the default whole: properties are never mixed. Only a name that an item's subject, resource or action leaves out
 * is the default's (certification scenario, "Batch with default value merging").
 */
function withDefaults(defaults: JsonObject, item: Json): JsonObject {
  if (!isObject(item)) throw invalid("an evaluation must be an object");
  return {
    ...whole("subject", ["type", "id"], defaults, item),
    ...whole("action", ["name"], defaults, item),
    ...whole("resource", ["type", "id"], defaults, item),
    ...whole("context", [], defaults, item),
  };
}

function whole(member: string, names: readonly string[], defaults: JsonObject, item: JsonObject): JsonObject {
  const [base, own] = [defaults[member], item[member]];
  if (own === undefined) return base === undefined ? {} : { [member]: base };
  if (!isObject(own) || !isObject(base)) return { [member]: own };
  const missing = names.filter((name) => own[name] === undefined && base[name] !== undefined);
  if (missing.length === 0) return { [member]: own };
  return { [member]: { ...own, ...Object.fromEntries(missing.map((name) => [name, base[name] as Json])) } };
}

function itemError({ status, message }: Refusal): Record<string, unknown> {
  return { decision: false, context: { error: { status, message } } };
}

function semanticOf(options: Json | undefined): Semantic {
  if (options === undefined) return "execute_all";
  if (!isObject(options)) throw invalid("options must be an object");
  const asked = options.evaluations_semantic ?? "execute_all";
  const known = SEMANTICS.find((semantic) => semantic === asked);
  if (known === undefined) throw invalid(`options.evaluations_semantic must be one of ${SEMANTICS.join(", ")}`);
  return known;
}

function decided(
  question: Quadruple,
  point: EnforcementPoint,
  parts: AuthzenParts,
  pause: Pause | undefined,
): Answered | Promise<Answered> {
  const { request, refusal } = grounded(question, point, parts);
  const decisionPoint = parts.decisionPoint();
  const decide = (): Answered | Promise<Answered> => {
    if (refusal !== undefined) return { request, decision: refusedHere(parts, "default", refusal) };
    const made: Decision | Promise<Decision> = decisionPoint.decide(request, enforcementOf(request));
    if (!(made instanceof Promise)) return { request, decision: made };
    return made.then((decision) => {
      // Neither a narrowing nor a revocation waits for a decision that is under way.
      if (parts.decisionPoint() !== decisionPoint) {
        withdraw(decision);
        return decided(question, point, parts, pause);
      }
      const { refusal: since } = grounded(question, point, parts);
      if (since === undefined) return { request, decision };
      withdraw(decision);
      return { request, decision: refusedHere(parts, "default", since) };
    });
  };
  if (pause === undefined) return decide();
  // Before it is decided: then it can be recorded at once.
  return digestInTurns(request, pause).then(() => {
    const isLate = parts.decisionPoint() !== decisionPoint || grounded(question, point, parts).refusal !== refusal;
    return isLate ? decided(question, point, parts, pause) : decide();
  });
}
