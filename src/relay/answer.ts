import type { OutgoingAnswer } from "../http/outgoing-answer.js";
import type { Refusal } from "../http/refusal.js";
import type { Decision } from "../policy/access-request.js";
import { DECISION_HEADER } from "./headers.js";
import type { JsonRpcId } from "./mcp-message.js";

/** Answers with RFC 9457 problem details. Nothing is sent where the head of an answer is already out: the connection is cut instead. */
export function answerProblem(
  response: OutgoingAnswer,
  problem: {
    status: number;
    title: string;
    code: string;
    detail: string;
    rule?: string;
    decision?: string;
    retryAfterMs?: number | undefined;
  },
): void {
  const { status, title, code, detail, rule, decision, retryAfterMs } = problem;
  const body = { type: `about:blank#${code}`, title, status, code, detail, rule, decision };
  if (retryAfterMs !== undefined && !response.headersSent) {
    response.setHeader("Retry-After", Math.ceil(retryAfterMs / 1000));
  }
  send(response, status, "application/problem+json", body, decision);
}

/** Answers a message of MCP with a JSON-RPC error. */
export function answerJsonRpcError(
  response: OutgoingAnswer,
  answer: {
    status: number;
    id: JsonRpcId | null;
    code: number;
    message: string;
    data?: Record<string, unknown>;
    decision?: string;
  },
): void {
  const { status, id, code, message, data, decision } = answer;
  send(response, status, "application/json", { jsonrpc: "2.0", id, error: { code, message, data } }, decision);
}

/** Answers a `tools/call` with a result that tells the model why it was denied: the one form that every client shows it (D17). */
export function answerToolDenial(response: OutgoingAnswer, id: JsonRpcId, decision: Decision): void {
  const message = decision.message === undefined ? "" : ` ${decision.message}`;
  const text = `denied by policy ${decision.rule} (${decision.reason}).${message} Decision ${decision.id}`;
  const result = {
    content: [{ type: "text", text }],
    isError: true,
    _meta: { "agentid/decision": decision.id, "agentid/rule": decision.rule, "agentid/reason": decision.reason },
  };
  send(response, 200, "application/json", { jsonrpc: "2.0", id, result }, decision.id);
}

/** The title of a refusal's problem details. */
export function titleOf(refusal: Refusal): string {
  if (refusal.status === 401) return "No verified identity";
  if (refusal.status === 403) return "Refused";
  if (refusal.status === 409) return "Not sent again";
  if (refusal.code === "key-reused") return "The key was given to another request";
  if (refusal.status === 504) return "The service did not answer in time";
  if (refusal.status === 502) return "The service cannot be reached";
  return refusal.status >= 500 ? "Not possible now" : "Refused: the request has more than one reading";
}

function send(
  response: OutgoingAnswer,
  status: number,
  type: string,
  body: Record<string, unknown>,
  decision: string | undefined,
): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const bytes = Buffer.from(JSON.stringify(body));
  response.writeHead(status, {
    "Content-Type": type,
    "Content-Length": bytes.length,
    "Cache-Control": "no-store",
    ...(decision === undefined ? {} : { [DECISION_HEADER]: decision }),
  });
  response.end(bytes);
}
