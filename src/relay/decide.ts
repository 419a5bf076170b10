import type { AccessRequest, Decision, HttpFacts } from "../policy/access-request.js";
import { httpAccessRequest, mcpAccessRequest } from "../policy/access-request-of.js";
import type { Enforcement } from "../policy/enforcement.js";
import { digestInTurns } from "../policy/request-digest.js";
import { withdraw } from "../policy/settlement.js";
import { answerJsonRpcError, answerProblem, answerToolDenial } from "./answer.js";
import { type RecordedCall, type RecordedCalls, recordDecision, relayDecision, showEnd } from "./decision-record.js";
import { type Call, type Exchange, filled, type RelayParts, type Step, type StepResult } from "./exchange.js";
import { KnownCalls } from "./known-calls.js";
import { letGo, pauseOf } from "./long-message.js";
import { gateOf, toolOf } from "./mcp-message.js";

/** HTTP status with JSON-RPC denials of whole methods: outside the codes that JSON-RPC and MCP reserve (−32768…−32000). */
const DENIED = 403;
const METHOD_NOT_FOUND = -32601;
const INVALID_PARAMS = -32602;

/** The step that asks the decision point, records its answer, and answers where that is a denial. */
export function decideAndRecord(parts: RelayParts): Step {
  const calls: RecordedCalls = new KnownCalls();
  const enforce = (
    exchange: Exchange,
    { decision, request }: Decided,
    known: RecordedCall | undefined,
  ): Promise<StepResult> => {
    const answered = () => {
      if (decision.allowed) {
        letGo(exchange);
        return undefined;
      }
      answerDenial(exchange, decision);
      showEnd(parts, exchange, { status: exchange.response.statusCode });
      return "answered";
    };
    return recordDecision(parts, exchange, decision, request, known).then(answered, withdrawing(decision));
  };
  return (exchange) => {
    const isHttp = exchange.service.protocol !== "mcp";
    const question = () => httpQuestion(exchange);
    const known = isHttp ? calls.find(exchange, parts.decisionPoint(), question) : undefined;
    const asked = isHttp
      ? decided(parts, known?.request ?? question(), goneFrom(exchange))
      : decideMcp(parts, exchange);
    // What was awaited may have been decided by other rules, which hide other things: nothing is known of it.
    return asked instanceof Promise
      ? asked.then((made) => enforce(exchange, made, undefined))
      : enforce(exchange, asked, known);
  };
}

interface Decided {
  readonly decision: Decision;
  readonly request: AccessRequest | undefined;
}

function decided(parts: RelayParts, request: AccessRequest, hasGone: () => boolean): Decided | Promise<Decided> {
  const point = parts.decisionPoint();
  const made = point.decide(request, RELAY);
  if (!(made instanceof Promise)) return { decision: made, request };
  return made.then((decision) => {
    if (hasGone()) return { decision: withoutCaller(decision), request };
    if (parts.decisionPoint() === point) return { decision, request };
    // A narrowing does not wait for a decision that is under way.
    withdraw(decision);
    return decided(parts, request, hasGone);
  });
}

/** The connection is closed for who was revoked, has lost its identity or runs another program: a decision that came later is nobody's. */
function goneFrom({ request, response }: Exchange): () => boolean {
  return () => request.socket.destroyed || response.destroyed;
}

export function withoutCaller(decision: Decision): Decision {
  if (!decision.allowed) return decision;
  withdraw(decision);
  return { ...decision, allowed: false, reason: "the caller had gone before it was decided" };
}

/** The relay as the decision point is told of it: it meets no obligation. */
export const RELAY: Enforcement = { meets: () => false, shortfall: "which the relay does not know" };

/** What could not be put on record does not happen. */
export function withdrawing(decision: Decision): (thrown: unknown) => never {
  return (thrown) => {
    withdraw(decision);
    throw thrown;
  };
}

/** Asks the decision point about a call of gRPC. */
export function decideGrpc(parts: RelayParts, call: Call, hasGone: () => boolean): Decided | Promise<Decided> {
  return decided(parts, httpQuestion(call), hasGone);
}

function httpQuestion(call: Call): AccessRequest {
  const target = filled(call.target, "target");
  return httpAccessRequest({
    ...subjectOf(call),
    service: call.service.id.toString(),
    method: call.request.method ?? "",
    path: target.path,
    query: target.query,
    ...(call.webSocket !== undefined && { protocol: "websocket" }),
    ...(call.service.protocol === "grpc" && { protocol: "grpc" }),
  });
}

function decideMcp(parts: RelayParts, exchange: Exchange): Decided | Promise<Decided> {
  const { message } = exchange;
  const service = exchange.service.id.toString();
  if (message === undefined || message.kind === "response") {
    const decision = decideReach(parts, exchange);
    if (!decision.allowed || parts.decisionPoint().mustAskToReach?.(service) !== true) {
      return { decision, request: undefined };
    }
    return decided(parts, mcpAccessRequest({ ...subjectOf(exchange), service, method: "ping" }), goneFrom(exchange));
  }
  if (gateOf(message) === "never") {
    const reason = `${message.method} is no method of MCP that the relay knows`;
    return { decision: relayDecision(parts, false, "default", reason), request: undefined };
  }
  const tool = toolOf(message);
  const request = mcpAccessRequest({
    ...subjectOf(exchange),
    service,
    method: message.method,
    ...(tool === undefined ? { args: message.params } : { tool: tool.name, args: tool.args }),
  });
  if (message.written === undefined) return decided(parts, request, goneFrom(exchange));
  return digestInTurns(request, pauseOf(exchange)).then(() => decided(parts, request, goneFrom(exchange)));
}

function subjectOf(exchange: Call): Pick<HttpFacts, "caller" | "callerIs"> {
  const { id, evidence, launchedBy } = filled(exchange.caller, "caller");
  return {
    caller: id.toString(),
    callerIs: { evidence, ...(launchedBy.length > 0 && { launched_by: launchedBy }) },
  };
}

/** GET opens the stream of server messages, DELETE ends a session, a response answers the server: none carries a call. */
function decideReach(parts: RelayParts, exchange: Exchange): Decision {
  const { service } = exchange;
  const { id, launchedBy } = filled(exchange.caller, "caller");
  const reachable = parts.decisionPoint().couldReach(id.toString(), service.id.toString(), launchedBy);
  const reason = reachable
    ? `some rule lets the caller do something at ${service.name}`
    : `no rule lets the caller do anything at ${service.name}`;
  return relayDecision(parts, reachable, reachable ? "reach" : "default", reason);
}

function answerDenial(exchange: Exchange, decision: Decision): void {
  const { message, response } = exchange;
  if (message?.kind !== "request") {
    answerProblem(response, {
      status: 403,
      title: "Denied by policy",
      code: "denied",
      detail: decision.message === undefined ? decision.reason : `${decision.message} (${decision.reason})`,
      rule: decision.rule,
      decision: decision.id,
      retryAfterMs: decision.retryAfterMs,
    });
    return;
  }
  const tool = toolOf(message);
  if (tool !== undefined && decision.conditional) {
    answerToolDenial(response, message.id, decision);
    return;
  }
  const common = { status: 200, id: message.id, decision: decision.id };
  if (tool !== undefined) {
    // The bytes of a tool that does not exist: a caller learns nothing of tools that no rule lets it call.
    answerJsonRpcError(response, { ...common, code: INVALID_PARAMS, message: `Unknown tool: ${tool.name}` });
  } else if (gateOf(message) === "never") {
    answerJsonRpcError(response, { ...common, code: METHOD_NOT_FOUND, message: "Method not found" });
  } else {
    const data = { rule: decision.rule, decision: decision.id };
    const why = `denied by policy ${decision.rule} (${decision.reason}). Decision ${decision.id}`;
    answerJsonRpcError(response, { ...common, code: DENIED, message: why, data });
  }
}
