import { randomUUID } from "node:crypto";
import { CodedError, messageOf } from "../../coded-error.js";
import type { AuthzenEngineConfig, OpaEngineConfig } from "../../config/config.js";
import type { AccessRequest, Properties } from "../access-request.js";
import type { PolicyEngine, Verdict } from "../engine.js";
import { writtenOut } from "../request-digest.js";
import { shownReason } from "../shown-reason.js";
import { type AuthzenEndpoint, findEvaluationEndpoint } from "./authzen-metadata.js";
import { consideredAs, permitted, refused } from "./denials.js";
import { readObligations, verdictOf } from "./engine-answer.js";
import { digestOf, readEngineFile, textOf } from "./engine-files.js";
import { knownRequest } from "./known-request.js";
import type { EngineContext, EngineLoad } from "./loaded-engine.js";
import { type RemoteServer, remoteServer } from "./remote-call.js";

/** A request as JSON. */
type Question = string;

const MAX_REQUEST_CHARACTERS = 1024 * 1024;

/** An OPA server: `POST /v1/data/finance/allow`. Throws EngineFileError for its files. */
export function loadOpaEngine(config: OpaEngineConfig, context: EngineContext): Promise<EngineLoad> {
  const { name, path } = config;
  return loadRemote(config, context, (server) => async (question) => {
    const { body } = await server.post(`/v1/data/${path}`, bounded(`{"input":${question}}`));
    // Without a `result` the document is undefined.
    if (!isObject(body)) throw new CodedError("engine-answer", "its answer is no object");
    return verdictOf(body.result, name, path);
  });
}

/** An AuthZEN decision point (Authorization API 1.0 §6, §9). */
export function loadAuthzenEngine(config: AuthzenEngineConfig, context: EngineContext): Promise<EngineLoad> {
  const { name, url } = config;
  return loadRemote(config, context, (server) => {
    let endpoint: Promise<AuthzenEndpoint> | undefined;
    const found = (): Promise<AuthzenEndpoint> => {
      endpoint ??= findEvaluationEndpoint(server, url).catch((thrown: unknown) => {
        // The next question looks again.
        endpoint = undefined;
        throw thrown;
      });
      return endpoint;
    };
    return async (question) => {
      const { path } = await found();
      const id = randomUUID();
      const { headers, body } = await server.post(path, bounded(question), { "x-request-id": id });
      const echoed = headers["x-request-id"];
      // "the PDP MUST include the same": some leave it out, none may answer somebody else's question.
      if (echoed !== undefined && echoed !== id)
        throw new CodedError("engine-answer", "its answer is to another request");
      return decisionOf(body, name);
    };
  });
}

function decisionOf(body: unknown, name: string): Verdict {
  if (!isObject(body)) throw new CodedError("engine-answer", "its answer is no object");
  const { decision, context } = body;
  if (typeof decision !== "boolean") {
    throw new CodedError(
      "engine-answer",
      `its decision is ${shownReason(JSON.stringify(decision) ?? "missing")}, not true or false`,
    );
  }
  if (context !== undefined && context !== null && !isObject(context)) {
    throw new CodedError("engine-answer", "its context is no object");
  }
  const why = typeof context?.reason === "string" ? `: ${shownReason(context.reason)}` : "";
  if (!decision) return refused({ rule: name, reason: `${name} does not permit it${why}` });
  const obligations = readObligations(context?.obligations);
  if (obligations === undefined) throw new CodedError("engine-answer", "its obligations cannot be understood");
  return permitted({ rule: name, reason: `permitted by ${name}${why}`, obligations });
}

async function loadRemote(
  config: OpaEngineConfig | AuthzenEngineConfig,
  { entities, isAsked, projectDirectory }: EngineContext,
  connected: (server: RemoteServer) => (question: Question) => Promise<Verdict>,
): Promise<EngineLoad> {
  const { name, url, timeoutMillis } = config;
  const tokenFile =
    config.tokenFile === undefined ? undefined : await readEngineFile(config.tokenFile, projectDirectory);
  const caFile = config.ca === undefined ? undefined : await readEngineFile(config.ca, projectDirectory);
  const token = tokenFile && textOf(tokenFile).trim();
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    throw new CodedError("engine-token", `${tokenFile?.shown} holds no token`);
  }
  const files = [tokenFile, caFile].filter((file) => file !== undefined);
  const path = config.kind === "opa" ? config.path : null;
  const digest = digestOf([config.kind, name, config.scope ?? null, url, path, timeoutMillis], files);
  const open = (): PolicyEngine => {
    const decide = connected(remoteServer({ url, timeoutMillis, token, ca: caFile && textOf(caFile) }));
    const judge = async (request: AccessRequest): Promise<Verdict> => {
      const known = knownRequest(request, entities);
      try {
        return await decide(await writtenOut(request, known));
      } catch (thrown) {
        return refused({ rule: name, reason: `${name} ${messageOf(thrown)}` });
      }
    };
    return {
      name,
      digest,
      isAsked,
      judge,
      consider: (_, verdict) => consideredAs(name, verdict),
      couldAllow: () => true,
      cannotTell: true,
    };
  };
  return { engine: { name, digest, open }, problems: [] };
}

function bounded(text: string): string {
  if (text.length > MAX_REQUEST_CHARACTERS) {
    throw new CodedError(
      "engine-request",
      `is not asked: the request is larger than ${MAX_REQUEST_CHARACTERS} characters`,
    );
  }
  return text;
}

function isObject(value: unknown): value is Properties {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
