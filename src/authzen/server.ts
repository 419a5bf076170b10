import { messageOf } from "../coded-error.js";
import type { BodyBytes } from "../http/body-bytes.js";
import { checkHostAndOrigin, type ListenerNames } from "../http/host-check.js";
import type { IncomingRequest } from "../http/incoming-request.js";
import { longBodies, type Sender } from "../http/long-bodies.js";
import type { OutgoingAnswer } from "../http/outgoing-answer.js";
import { Refusal } from "../http/refusal.js";
import { checkRequestHead, headerOf } from "../http/request-headers.js";
import { isLong, type JsonObject } from "../http/strict-json.js";
import { hasRoomInTurn, nextTurn, type Pause } from "../platform/turns.js";
import { checkBodyHeaders, readBody } from "./body.js";
import { digestOfSearch, type RefusedAdmission, recordRefusal, recordSearch } from "./decision-record.js";
import { evaluate, evaluateAll } from "./evaluate.js";
import { metadataAt, PATHS } from "./metadata.js";
import { createPageTokens } from "./page-token.js";
import type { AuthzenParts, EnforcementPoint } from "./parts.js";
import { parseBody, parseBodyInTurns, questionOf } from "./request-shape.js";
import { type SearchKind, search } from "./search.js";

/** One way in: a listener, the names it answers to, and how it knows who asks. */
export interface Door {
  readonly names: ListenerNames;
  /** `https` or, on the Unix socket, `http`. */
  readonly scheme: "https" | "http";
  /** Value of `WWW-Authenticate` for who cannot be known. */
  readonly challenge: string;
  /** Throws Refusal 401 for nobody, 403 for somebody who may not ask; `NotAdmitted` says who. */
  whoAsks(request: IncomingRequest): EnforcementPoint | Promise<EnforcementPoint>;
  /** For the record, of somebody who was refused. */
  describe(request: IncomingRequest): Omit<RefusedAdmission, "path">;
}

/** Answers the requests of all doors. */
export type Answerer = (door: Door, request: IncomingRequest, response: OutgoingAnswer) => void;

type Endpoint = (body: BodyBytes, point: EnforcementPoint, response: OutgoingAnswer) => Promise<unknown>;

/** What is worked on in turns, until nobody waits for the answer; undefined for what is small. */
function pauseFor(bytes: BodyBytes, response: OutgoingAnswer): Pause | undefined {
  if (!isLong(bytes)) return undefined;
  return pauseOf(response);
}

function pauseOf(response: OutgoingAnswer): Pause {
  return async () => {
    await nextTurn();
    if (response.destroyed) throw new Refusal("caller-gone", 400, "the caller went away before it was answered");
  };
}

type SenderOf = (point: EnforcementPoint, response: OutgoingAnswer) => Sender;

function readLong(bytes: BodyBytes, pause: Pause, sender: Sender): Promise<JsonObject> {
  return longBodies.read(sender, () => parseBodyInTurns(bytes, pause));
}

type Evaluation = (body: JsonObject, point: EnforcementPoint, pause: Pause | undefined) => Promise<unknown>;

/** Without a turn of the event loop for what is small. */
function inTurns(answer: Evaluation, senderOf: SenderOf): Endpoint {
  return (bytes, point, response) => {
    const pause = pauseFor(bytes, response);
    if (pause === undefined) {
      const small = () => answer(parseBody(bytes.bytes()), point, undefined);
      return hasRoomInTurn(bytes.length) ? small() : pauseOf(response)().then(small);
    }
    return readLong(bytes, pause, senderOf(point, response)).then((body) => answer(body, point, pause));
  };
}

export function createAnswerer(parts: AuthzenParts): Answerer {
  const tokens = createPageTokens();
  const senderOf: SenderOf = ({ id, name }, response) => ({
    caller: id ?? name,
    connection: response,
    clock: parts.clock,
  });
  const searchFor =
    (kind: SearchKind): Endpoint =>
    async (bytes, point, response) => {
      const pause = pauseFor(bytes, response);
      const body =
        pause === undefined ? parseBody(bytes.bytes()) : await readLong(bytes, pause, senderOf(point, response));
      const digest = await digestOfSearch(body, pause);
      const found = await search(kind, body, { point, parts, tokens, isWanted: () => !response.destroyed, pause });
      await recordSearch(parts, point, { kind, digest, found: found.results.length });
      return found;
    };
  const endpoints: ReadonlyMap<string, Endpoint> = new Map([
    [PATHS.evaluation, inTurns((body, point, pause) => evaluate(questionOf(body), point, parts, pause), senderOf)],
    [PATHS.evaluations, inTurns((body, point, pause) => evaluateAll(body, point, parts, pause), senderOf)],
    [PATHS.subject, searchFor("subject")],
    [PATHS.resource, searchFor("resource")],
    [PATHS.action, searchFor("action")],
  ]);

  /** Before a turn of the event loop: what breaks off behind a head that is refused must find it answered. */
  function endpointAt(door: Door, request: IncomingRequest, response: OutgoingAnswer): Endpoint | undefined {
    checkRequestHead(request);
    checkHostAndOrigin(request.rawHeaders, door.names);
    const path = request.url;
    if (path === PATHS.metadata) {
      requireMethod(request, response, "GET");
      const host = headerOf(request.rawHeaders, "host")?.toLowerCase() ?? "";
      sendJson(response, metadataAt(`${door.scheme}://${host}`, parts.obligations()));
      return undefined;
    }
    const endpoint = endpoints.get(path);
    if (endpoint === undefined) throw new Refusal("route-unknown", 404, `nothing is served at ${JSON.stringify(path)}`);
    requireMethod(request, response, "POST");
    return endpoint;
  }

  /** Without a turn of the event loop as far as can be: a body that came with its head is then read as it comes. */
  function answer(endpoint: Endpoint, door: Door, request: IncomingRequest, response: OutgoingAnswer): Promise<void> {
    const answerTo = async (point: EnforcementPoint): Promise<void> => {
      checkBodyHeaders(request);
      const body = await readBody(request, parts.clock);
      sendJson(response, await endpoint(body, point, response));
    };
    try {
      const asking = door.whoAsks(request);
      if (!(asking instanceof Promise)) return answerTo(asking);
      return asking.then(answerTo, (thrown: unknown) => refuseAdmission(door, request, response, thrown));
    } catch (thrown) {
      return refuseAdmission(door, request, response, thrown);
    }
  }

  /** Whoever is refused is on record before being told. */
  async function refuseAdmission(
    door: Door,
    request: IncomingRequest,
    response: OutgoingAnswer,
    thrown: unknown,
  ): Promise<never> {
    const refusal = asRefusal(thrown);
    if (refusal.status === 401) response.setHeader("WWW-Authenticate", door.challenge);
    await recordRefusal(parts, { ...door.describe(request), path: request.url }, refusal);
    throw refusal;
  }

  return (door, request, response) => {
    echoRequestId(request, response);
    try {
      const endpoint = endpointAt(door, request, response);
      if (endpoint === undefined) return;
      answer(endpoint, door, request, response).catch((thrown: unknown) =>
        refuse(request, response, asRefusal(thrown)),
      );
    } catch (thrown) {
      refuse(request, response, asRefusal(thrown));
    }
  };
}

/** "If the PEP sent an X-Request-ID, the PDP MUST return the same value": whatever the answer is. */
function echoRequestId(request: IncomingRequest, response: OutgoingAnswer): void {
  const id = headerOf(request.rawHeaders, "x-request-id");
  if (id !== undefined) response.setHeader("X-Request-ID", id);
}

function requireMethod(request: IncomingRequest, response: OutgoingAnswer, method: "GET" | "POST"): void {
  if (request.method === method) return;
  response.setHeader("Allow", method);
  throw new Refusal("method-refused", 405, `only ${method} is answered here`);
}

function sendJson(response: OutgoingAnswer, body: unknown): void {
  if (response.destroyed) return;
  const text = JSON.stringify(body);
  response.writeHead(200, {
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(text),
    "Cache-Control": "no-store",
  });
  response.end(text);
}

/** An error is about the request, never a decision; its body is "an error message string". */
function refuse(request: IncomingRequest, response: OutgoingAnswer, refusal: Refusal): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  // Refused by its head: whatever comes behind that could have been meant otherwise.
  if (!request.isRead) response.beLast();
  const text = `${refusal.message}\n`;
  response.writeHead(refusal.status, {
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Length": Buffer.byteLength(text),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
  });
  response.end(request.method === "HEAD" ? undefined : text);
}

function asRefusal(thrown: unknown): Refusal {
  if (thrown instanceof Refusal) return thrown;
  return new Refusal("decision-failed", 500, `no answer after an error: ${messageOf(thrown)}`, { cause: thrown });
}
