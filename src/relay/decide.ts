import type { AccessRequest, Decision } from "../policy/access-request.js";
import { httpAccessRequest, mcpAccessRequest } from "../policy/access-request-of.js";
import { answerJsonRpcError, answerProblem, answerToolDenial } from "./answer.js";
import { recordDecision, relayDecision, showEnd } from "./decision-record.js";
import { type Exchange, filled, type RelayParts, type Step } from "./exchange.js";
import { gateOf, type McpMessage, toolOf } from "./mcp-message.js";

/** HTTP status with JSON-RPC denials of whole methods: outside the codes that JSON-RPC and MCP reserve (−32768…−32000). */
const DENIED = 403;
const METHOD_NOT_FOUND = -32601;
const INVALID_PARAMS = -32602;

/** The step that asks the decision point, records its answer, and answers where that is a denial. */
export function decideAndRecord(parts: RelayParts): Step {
  return (exchange) => {
    const { decision, request } =
      exchange.service.protocol === "mcp" ? decideMcp(parts, exchange) : decideHttp(parts, exchange);
    recordDecision(parts, exchange, decision, request);
    if (decision.allowed) return undefined;
    answerDenial(exchange, decision);
    showEnd(parts, exchange, { status: exchange.response.statusCode });
    return "answered";
  };
}

interface Decided {
  readonly decision: Decision;
  readonly request: AccessRequest | undefined;
}

function decideHttp(parts: RelayParts, exchange: Exchange): Decided {
  const target = filled(exchange.target, "target");
  const request = httpAccessRequest({
    caller: filled(exchange.caller, "caller").id.toString(),
    service: exchange.service.id.toString(),
    method: exchange.request.method ?? "",
    path: target.path,
    query: target.query,
  });
  return { decision: parts.decisionPoint().decide(request), request };
}

function decideMcp(parts: RelayParts, exchange: Exchange): Decided {
  const { message } = exchange;
  const caller = filled(exchange.caller, "caller").id.toString();
  const service = exchange.service.id.toString();
  // GET opens the stream of server messages, DELETE ends a session: neither carries a call.
  const gate = message === undefined ? "reach" : gateOf(message);
  const method = methodOf(exchange, message);
  if (gate === "reach") {
    const reachable = parts.decisionPoint().couldReach(caller, service);
    const reason = reachable
      ? `${method} is open to every caller that a rule lets call something at ${exchange.service.name}`
      : `no rule lets this caller call anything at ${exchange.service.name}`;
    const decision = relayDecision(parts, reachable, reachable ? "reach" : "default", reason);
    return { decision, request: mcpAccessRequest({ caller, service, method }) };
  }
  if (gate === "never") {
    const decision = relayDecision(parts, false, "default", `${method} is no method of MCP that the relay knows`);
    return { decision, request: mcpAccessRequest({ caller, service, method }) };
  }
  const tool = message === undefined ? undefined : toolOf(message);
  const params = message === undefined || message.kind === "response" ? undefined : message.params;
  const request = mcpAccessRequest({
    caller,
    service,
    method,
    ...(tool === undefined ? { args: params ?? {} } : { tool: tool.name, args: tool.args }),
  });
  return { decision: parts.decisionPoint().decide(request), request };
}

function methodOf(exchange: Exchange, message: McpMessage | undefined): string {
  if (message === undefined) return `http:${exchange.request.method ?? ""}`;
  return message.kind === "response" ? "response" : message.method;
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
