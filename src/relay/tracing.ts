import type { RawHeaders } from "../http/request-headers.js";
import type { CallSpan, CallTracer, SpanFacts } from "../telemetry/call-tracer.js";
import { parseTraceParent, type TraceParent } from "../telemetry/trace-context.js";
import type { RelayedBytes } from "./byte-relay.js";
import type { Call, Exchange, Step } from "./exchange.js";
import { forwardableRequestHeaders } from "./headers.js";
import { type McpMessage, toolOf } from "./mcp-message.js";
import { decidesOutbound } from "./running-service.js";

/** What the next hop is told of the trace in place of what the caller said; without somebody who collects spans the caller's words pass untouched. */
export const TRACE_HEADERS: ReadonlySet<string> = new Set(["traceparent", "tracestate"]);

/** The step that makes a span of each call, also of one that is refused. Comes when the headers have been checked. */
export function traceCalls(tracer: () => CallTracer | undefined): Step {
  return (exchange) => {
    const current = tracer();
    if (current === undefined || saysItInTheBody(exchange)) return undefined;
    exchange.span = onFirstUse(() => current.begin(exchange.leg, exchange.startedAt, parentOf(exchange)));
    // Of a WebSocket: unless it was opened, and then whoever carries its bytes ends the span.
    for (const end of exchange.webSocket === undefined ? ["close"] : ["close", "finish"]) {
      exchange.response.once(end, () => endSpan(exchange));
    }
    return undefined;
  };
}

/** Ends the span of a call. `carried`: what became of the WebSocket that it has opened. */
export function endSpan(exchange: Exchange, carried?: RelayedBytes): void {
  exchange.span?.().end(factsOf(exchange, carried));
}

/** The headers by which the next hop continues the trace. */
export function traceHeaders(span: CallSpan): readonly string[] {
  const { traceparent, tracestate } = span;
  return ["traceparent", traceparent, ...(tracestate === undefined ? [] : ["tracestate", tracestate])];
}

/** The caller's headers as they may go on, with the trace continued by `span`. */
export function continuedHeaders(raw: RawHeaders, span: CallSpan | undefined): readonly string[] {
  if (span === undefined) return forwardableRequestHeaders(raw);
  return [...forwardableRequestHeaders(raw, TRACE_HEADERS), ...traceHeaders(span)];
}

/** The message as it goes on: where it carries a trace context itself (MCP `_meta`, SEP-414), that says the same as the headers. */
export function tracedMessage({ json }: Pick<McpMessage, "json">, span: CallSpan | undefined): unknown {
  const params = json.params;
  if (span === undefined || !isObject(params) || !isObject(params._meta)) return json;
  const { traceparent, tracestate: _theirs, ...others } = params._meta;
  if (typeof traceparent !== "string") return json;
  const tracestate = span.tracestate === undefined ? {} : { tracestate: span.tracestate };
  return { ...json, params: { ...params, _meta: { ...others, traceparent: span.traceparent, ...tracestate } } };
}

/** Whose caller names the trace in the body, if at all, is traced by the leg that reads it: a span of ours before that would begin another trace. */
function saysItInTheBody({ leg, service, request }: Exchange): boolean {
  if (service.protocol !== "mcp" || leg === "inbound" || decidesOutbound(service)) return false;
  return valuesOf(request.rawHeaders, "traceparent").length === 0;
}

/** The span of which a request's headers say that it goes on. */
export function parentIn(raw: RawHeaders): TraceParent | undefined {
  return parseTraceParent(valuesOf(raw, "traceparent"), valuesOf(raw, "tracestate"));
}

function parentOf({ request, message }: Exchange): TraceParent | undefined {
  const parent = parentIn(request.rawHeaders);
  if (parent !== undefined) return parent;
  const params = message?.json.params;
  const meta = isObject(params) ? params._meta : undefined;
  if (!isObject(meta) || typeof meta.traceparent !== "string") return undefined;
  return parseTraceParent([meta.traceparent], typeof meta.tracestate === "string" ? [meta.tracestate] : []);
}

function factsOf(exchange: Exchange, carried: RelayedBytes | undefined): SpanFacts {
  const { leg, message, request, response, service, target, webSocket } = exchange;
  const { statusCode } = response;
  const tool = message === undefined ? undefined : toolOf(message);
  const method = message === undefined || message.kind === "response" ? undefined : message.method;
  const refused = carried === undefined ? failureOf(leg, statusCode) : errorKind(carried.error);
  const failed = carried === undefined && !response.writableFinished ? "aborted" : refused;
  return {
    name: method === undefined ? `${request.method} ${service.name}` : [method, tool?.name].join(" ").trimEnd(),
    errorType: failed,
    attributes: {
      "http.request.method": request.method,
      "http.response.status_code": response.headersSent ? statusCode : undefined,
      "url.path": target?.path,
      "network.protocol.name": webSocket === undefined ? undefined : "websocket",
      "mcp.method.name": method,
      "gen_ai.tool.name": tool?.name,
      ...carriedAttributes(carried),
      ...ownAttributes(exchange),
    },
  };
}

/** What goes wrong by the semantic conventions: for who calls also what is the caller's fault. */
export function failureOf(leg: Call["leg"], status: number): string | undefined {
  return status >= (leg === "outbound" ? 400 : 500) ? String(status) : undefined;
}

/** `denied-since` of `denied-since: no rule allows …`: of few values, and without what the reason says of the call. */
export function errorKind(error: string | undefined): string | undefined {
  return error?.split(":")[0];
}

/** What spans of all kinds say of the call. */
export function ownAttributes({
  caller,
  decision,
  leg,
  service,
}: Pick<Call, "caller" | "decision" | "leg" | "service">) {
  return {
    "server.address": service.name,
    "agentid.leg": leg,
    "agentid.caller": caller?.id.toString(),
    "agentid.service": service.id.toString(),
    "agentid.decision": decision?.id,
    "agentid.verdict": decision && (decision.allowed ? "ALLOW" : "DENY"),
    "agentid.rule": decision?.rule,
  };
}

/** How many bytes went which way, and for how long they could. */
export function carriedAttributes(carried: RelayedBytes | undefined) {
  if (carried === undefined) return {};
  const { sent, received, openMs } = carried;
  return { "agentid.sent": sent, "agentid.received": received, "agentid.open_ms": Math.round(openMs) };
}

function onFirstUse<Value>(make: () => Value): () => Value {
  let made: { value: Value } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}

function valuesOf(raw: RawHeaders, name: string): readonly string[] {
  const values: string[] = [];
  for (let index = 0; index < raw.length; index += 2) {
    if (raw[index]?.toLowerCase() === name) values.push(raw[index + 1] ?? "");
  }
  return values;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
