import type { Onward } from "../http/outgoing-call.js";
import { Refusal } from "../http/refusal.js";
import { type Exchange, filled, type RelayParts } from "./exchange.js";
import type { AnswerHeaders, NextHop } from "./forward.js";
import { forwardableRequestHeaders } from "./headers.js";
import { checkedEvents, checkedJson } from "./json-rpc-answer.js";
import { type BodyRewriter, jsonToolListRewriter, sseToolListRewriter } from "./mcp-tool-list.js";
import { namedFromHere } from "./own-address.js";
import { TRACE_HEADERS, tracedMessage, traceHeaders } from "./tracing.js";

/** The relay reads MCP answers, so it must not ask for encoded ones; the length of a rewritten body is its own. */
const DROPPED_FOR_MCP = new Set(["accept-encoding", "content-length"]);
/** A kept answer must be readable for whoever asks again. */
const DROPPED_FOR_KEPT = new Set(["accept-encoding"]);
const NOTHING: ReadonlySet<string> = new Set();
const WITH_TRACE = new Map(
  [NOTHING, DROPPED_FOR_MCP, DROPPED_FOR_KEPT].map((names) => [names, new Set([...names, ...TRACE_HEADERS])]),
);

/**
 * The exchange's request as it goes on. The body of an MCP message is written anew from what was decided, never copied: whatever a
 * second parser could have read differently in the caller's bytes is gone. Other bodies stream through untouched, nothing was decided on them.
 */
export function nextHop(
  parts: RelayParts,
  exchange: Exchange,
  to: { dispatcher: Onward; host: string; added: readonly string[]; answerHeaders?: AnswerHeaders },
): NextHop {
  const { durable, message, request } = exchange;
  const { dispatcher } = to;
  const named = namedFromHere(exchange, to.host);
  const answerHeaders: AnswerHeaders = (headers) => to.answerHeaders?.(named(headers)) ?? named(headers);
  const decidedHere = exchange.decision !== undefined && exchange.service.protocol === "mcp";
  const span = exchange.span?.();
  const dropped = decidedHere ? DROPPED_FOR_MCP : durable === undefined ? NOTHING : DROPPED_FOR_KEPT;
  const notSent = span === undefined ? dropped : WITH_TRACE.get(dropped);
  const headers = forwardableRequestHeaders(request.rawHeaders, notSent, to.host);
  headers.push(...to.added);
  if (span !== undefined) headers.push(...traceHeaders(span));
  return {
    dispatcher: durable?.observe?.(dispatcher, answerHeaders) ?? dispatcher,
    path: filled(exchange.target, "target").raw,
    headers,
    body:
      message === undefined
        ? bodyOf(exchange)
        : (message.written ?? Buffer.from(JSON.stringify(tracedMessage(message, span)))),
    rewriterFor: decidedHere ? mcpAnswers(parts, exchange) : undefined,
    answerHeaders,
  };
}

function bodyOf({ durable, request }: Exchange): NextHop["body"] {
  if (durable !== undefined) return durable.body;
  return request.hasBody ? request.stream() : null;
}

/** The answer to a message is held against its id. Tool lists come as the answer to `tools/list`, or, when a broken stream is resumed, on the GET stream. */
function mcpAnswers(parts: RelayParts, exchange: Exchange): NextHop["rewriterFor"] {
  const { message, request, service } = exchange;
  if (request.method === "DELETE") return undefined;
  const asked = message?.kind === "request" ? message : undefined;
  const { id, launchedBy } = filled(exchange.caller, "caller");
  const mayCall = (tool: string) =>
    parts.decisionPoint().couldAllowTool(id.toString(), service.id.toString(), tool, launchedBy);
  const lists = message === undefined || asked?.method === "tools/list";
  return (status, type): BodyRewriter | undefined => {
    if (type.startsWith("application/json")) {
      const rewriter = lists ? jsonToolListRewriter(mayCall) : undefined;
      return message === undefined ? rewriter : checkedJson(status, asked?.id, rewriter);
    }
    if (type.startsWith("text/event-stream")) {
      const rewriter = lists ? sseToolListRewriter(mayCall) : undefined;
      return message === undefined ? rewriter : checkedEvents(asked?.id, rewriter);
    }
    if (status < 300 && type !== "" && (message === undefined || asked !== undefined)) {
      throw new Refusal("upstream-response", 502, `the service answered with ${type}, which MCP does not know`);
    }
    return undefined;
  };
}
