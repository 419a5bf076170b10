import type { EntityJson } from "@cedar-policy/cedar-wasm/nodejs";
import type { CedarEngineConfig } from "../../config/config.js";
import type { Clock } from "../../platform/clock.js";
import type { AccessRequest, ConsideredRule } from "../access-request.js";
import type { PolicyEngine, Possibility, Verdict } from "../engine.js";
import { isSessionMethod } from "../ruled-request.js";
import { cedarEvaluator } from "./cedar-evaluator.js";
import { type CedarLibrary, cedarLibrary } from "./cedar-library.js";
import { type CedarPolicy, entityKey, readCedarPolicies } from "./cedar-policies.js";
import { type CedarQuestion, cedarMapping, plain } from "./cedar-request.js";
import { type CedarSchema, readCedarSchema, uidText } from "./cedar-schema.js";
import { engineRule, permitted, refused } from "./denials.js";
import { digestOf, type EngineFile, EngineFileError, readEngineFile, readEngineFiles, textOf } from "./engine-files.js";
import { knownRequest } from "./known-request.js";
import type { EngineContext, EngineLoad, LoadedEngine } from "./loaded-engine.js";

/** Of very many policies so many are tried one by one to explain a decision. */
const MAX_EXPLAINED = 50;

/** Reads and validates what a Cedar engine decides by. Throws EngineFileError and CodedError `cedar-types`. */
export async function loadCedarEngine(config: CedarEngineConfig, context: EngineContext): Promise<EngineLoad> {
  const { projectDirectory, names, entities } = context;
  const files = await readEngineFiles(config.policies, projectDirectory, [".cedar"]);
  const schemaFile = config.schema === undefined ? undefined : await readEngineFile(config.schema, projectDirectory);
  const entityFile =
    config.entities === undefined ? undefined : await readEngineFile(config.entities, projectDirectory);
  const cedar = await cedarLibrary();
  const schema = schemaFile && readCedarSchema(cedar, schemaFile);
  const { policies, problems } = readCedarPolicies(cedar, files, schema);
  if (problems.some(({ severity }) => severity === "error")) return { engine: undefined, problems };
  const more = entityFile === undefined ? new Map<string, EntityJson>() : readCedarEntities(cedar, entityFile, schema);
  const questionOf = cedarMapping({ ...config, names, entities, schema, more });
  const others = [schemaFile, entityFile].filter((file) => file !== undefined);
  const settings = ["cedar", config.name, config.scope ?? null, config.namespace ?? null, config.types];
  const rest = digestOf(settings, others);
  const engine: LoadedCedarEngine = {
    name: config.name,
    digest: digestOf([rest], files),
    rest,
    policies,
    narrows: (old) => "policies" in old && narrows(old as LoadedCedarEngine, engine),
    open: ({ clock }) => openCedar({ cedar, config, context, engine, schema, questionOf, clock }),
  };
  return { engine, problems };
}

interface LoadedCedarEngine extends LoadedEngine {
  /** Digest over everything but the policies. */
  readonly rest: string;
  readonly policies: readonly CedarPolicy[];
}

/**
 * The same permits, and every forbid of before is still there. A permit that is gone shows nothing: one that fails denies, and without it another
 * may permit.
 */
function narrows(old: LoadedCedarEngine, next: LoadedCedarEngine): boolean {
  const texts = (policies: readonly CedarPolicy[], permits: boolean) =>
    policies.filter((policy) => policy.permits === permits).map(({ text }) => text);
  const permitsOf = (policies: readonly CedarPolicy[]) => JSON.stringify(texts(policies, true).sort());
  const forbids = new Set(texts(next.policies, false));
  return (
    old.rest === next.rest &&
    permitsOf(old.policies) === permitsOf(next.policies) &&
    texts(old.policies, false).every((text) => forbids.has(text))
  );
}

interface OpenCedar {
  readonly cedar: CedarLibrary;
  readonly config: CedarEngineConfig;
  readonly context: EngineContext;
  readonly engine: LoadedCedarEngine;
  readonly schema: CedarSchema | undefined;
  readonly questionOf: (request: AccessRequest, now: Date) => CedarQuestion;
  readonly clock: Clock;
}

function openCedar({ cedar, config, context, engine, schema, questionOf, clock }: OpenCedar): PolicyEngine {
  const { policies } = engine;
  const evaluator = cedarEvaluator(cedar, policies, schema);
  const byId = new Map(policies.map((policy) => [policy.id, policy]));
  const noPermit = `no policy of ${config.name} permits`;

  const ask = (request: AccessRequest): CedarQuestion =>
    questionOf(knownRequest(request, context.entities), new Date(clock.now()));

  const judge = (request: AccessRequest): Verdict => {
    const question = ask(request);
    const candidates = evaluator.candidates(question.keys);
    const couldBePermitted = candidates.some(({ permits }) => permits);
    const session = isSession(request);
    if (!couldBePermitted && !session)
      return refused({ rule: "default", reason: `${noPermit} ${described(question)}` }, false);
    if (isTooMuch(question, candidates)) {
      return refused({
        rule: "default",
        reason: `the request is too large for ${candidates.length} policies to judge at once`,
      });
    }
    const answer = evaluator.evaluate(question, candidates);
    if (answer.type === "failure") {
      return refused({
        rule: "default",
        reason: `Cedar cannot judge it: ${answer.errors.map(({ message }) => message).join("; ")}`,
      });
    }
    const { decision, diagnostics } = answer.response;
    const [error] = diagnostics.errors;
    // Cedar skips a forbid that fails, and allows.
    if (error !== undefined) {
      const at = byId.get(error.policyId)?.at;
      return refused({ rule: error.policyId, at, reason: `${error.policyId} failed: ${error.error.message}` });
    }
    const [reason] = diagnostics.reason.toSorted();
    const policy = reason === undefined ? undefined : byId.get(reason);
    if (decision === "allow" && policy !== undefined) {
      return permitted({ rule: policy.id, at: policy.at, reason: `permitted by ${policy.id}` });
    }
    if (policy !== undefined) {
      const forbidding = diagnostics.reason.map((id) => byId.get(id));
      const conditional = couldBePermitted && forbidding.every((each) => each?.unconditional === false);
      const { id: rule, at, message } = policy;
      return refused({ rule, at, message, reason: `forbidden by ${rule}` }, conditional);
    }
    if (session) {
      const opening = reaches(request.subject.id, request.resource.id, question);
      if (opening !== undefined) {
        const { id: rule, at } = opening;
        return permitted({ rule, at, reason: `${request.action.name} is part of the session that ${rule} permits` });
      }
    }
    return refused({ rule: "default", reason: `${noPermit} ${described(question)}` }, couldBePermitted);
  };

  /** The first permit that speaks of the caller and anything at the service, unless a forbid without conditions speaks of all of it. */
  const reaches = (caller: string, service: string, asked: CedarQuestion): CedarPolicy | undefined => {
    const { principal, resource } = asked.keys;
    const toolType = `is ${asked.resource.type.replace(/[^:]*$/, "")}${config.types["mcp-tool"] ?? "Tool"}`;
    const tools = uidText(toolType.slice("is ".length), `${asked.resource.id}/`);
    const isThere = (policy: CedarPolicy): boolean => {
      const key = entityKey(policy.scope.resource);
      return resource.includes(key) || key === toolType || key.startsWith(tools);
    };
    const there = policies.filter((policy) => principal.includes(entityKey(policy.scope.principal)) && isThere(policy));
    const shut = there.some(
      ({ permits, unconditional, scope }) =>
        !permits && unconditional && scope.action.op === "All" && scope.resource.op !== "is",
    );
    return shut || caller === "" || service === "" ? undefined : there.find(({ permits }) => permits);
  };

  const couldAllow = ({ caller, service, tool }: Possibility): boolean => {
    const request: AccessRequest = {
      subject: { type: "spiffe", id: caller },
      action: { name: tool === undefined ? "initialize" : "tools/call" },
      resource:
        tool === undefined ? { type: "mcp", id: service } : { type: "mcp-tool", id: service, properties: { tool } },
    };
    const question = ask(request);
    if (tool === undefined) return reaches(caller, service, question) !== undefined;
    const candidates = evaluator.candidates(question.keys);
    // `is T in E` is known by its type alone: such a forbid may be about something else.
    const shut = candidates.some(({ permits, unconditional, scope }) => !permits && unconditional && exact(scope));
    return !shut && candidates.some(({ permits }) => permits);
  };

  const consider = (request: AccessRequest): readonly ConsideredRule[] => {
    const question = ask(request);
    const candidates = evaluator.candidates(question.keys);
    const tried = candidates.slice(0, MAX_EXPLAINED).map((policy): ConsideredRule => {
      const base = {
        rule: engineRule(config.name, policy.id),
        at: policy.at,
        effect: policy.permits ? ("allow" as const) : ("deny" as const),
      };
      const answer = evaluator.evaluate(question, [policy]);
      if (answer.type === "failure") {
        return { ...base, outcome: "condition-error", detail: answer.errors.map(({ message }) => message).join("; ") };
      }
      const { reason, errors } = answer.response.diagnostics;
      const [error] = errors;
      if (error !== undefined) return { ...base, outcome: "condition-error", detail: error.error.message };
      const met = reason.includes(policy.id);
      return {
        ...base,
        outcome: met ? "matched" : "condition-false",
        detail: met ? "its conditions are met" : "its conditions are not met",
      };
    });
    if (candidates.some(({ permits }) => permits)) return tried;
    return [
      ...tried,
      {
        rule: engineRule(config.name, "default"),
        at: "",
        effect: "deny",
        outcome: "matched",
        detail: `${noPermit} ${described(question)}`,
      },
    ];
  };

  return { name: config.name, digest: engine.digest, isAsked: context.isAsked, judge, consider, couldAllow };
}

/** Every policy may look at every character, and the event loop waits: what is small is never too much, large texts are for few policies. */
const SMALL = 1024;
const MAX_WORK = 256 * 1024;

function isTooMuch({ size }: CedarQuestion, candidates: readonly CedarPolicy[]): boolean {
  return (size - SMALL) * candidates.length > MAX_WORK;
}

function isSession({ action, resource }: AccessRequest): boolean {
  return resource.type === "mcp" && isSessionMethod(action.name);
}

function exact({ principal, resource }: CedarPolicy["scope"]): boolean {
  return [principal, resource].every((constraint) => constraint.op !== "is" || constraint.in === undefined);
}

function described({ principal, action, resource }: CedarQuestion): string {
  return `${principal.type}::"${principal.id}" ${action.id} on ${resource.type}::"${resource.id}"`;
}

function readCedarEntities(
  cedar: CedarLibrary,
  file: EngineFile,
  schema: CedarSchema | undefined,
): ReadonlyMap<string, EntityJson> {
  const wrong = (message: string) => new EngineFileError("policy-cedar", file.shown, message);
  let entities: unknown;
  try {
    entities = JSON.parse(textOf(file));
  } catch (thrown) {
    throw wrong(String(thrown));
  }
  if (!Array.isArray(entities)) throw wrong("must be a list of entities in Cedar's JSON");
  const inexact = inexactNumber(entities);
  if (inexact !== undefined) throw wrong(`${inexact} is no whole number up to 2^53`);
  const checked = cedar.checkParseEntities({ entities, ...(schema !== undefined && { schema: schema.source }) });
  if (checked.type === "failure") throw wrong(checked.errors[0]?.message ?? "not entities");
  return new Map(
    (entities as EntityJson[]).map((entity) => {
      const { type, id } = plain(entity.uid);
      return [uidText(type, id), entity];
    }),
  );
}

function inexactNumber(value: unknown): number | undefined {
  if (typeof value === "number") return Number.isSafeInteger(value) ? undefined : value;
  if (typeof value !== "object" || value === null) return undefined;
  return Object.values(value)
    .map(inexactNumber)
    .find((found) => found !== undefined);
}
