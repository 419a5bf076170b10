import type { CallSpan } from "../telemetry/call-tracer.js";
import { parseTraceParent, type TraceParent } from "../telemetry/trace-context.js";
import type { RelayedBytes } from "./byte-relay.js";
import type { TcpExchange } from "./tcp-exchange.js";
import { carriedAttributes, errorKind, failureOf, ownAttributes } from "./tracing.js";

/** Begins the span of a connection whose `parent` is known. */
export function traceConnection(exchange: TcpExchange): void {
  spanOf(exchange);
}

/** The place in the trace that the next leg goes on from. Bytes carry no headers: our own legs tell each other beside them. */
export function traceOf(exchange: TcpExchange): TraceParent | undefined {
  const span = spanOf(exchange);
  return span && parseTraceParent([span.traceparent], span.tracestate === undefined ? [] : [span.tracestate]);
}

/** Ends the span of a connection: one that has carried bytes, or was refused with what HTTP would call `status`. */
export function endConnectionSpan(
  exchange: TcpExchange,
  outcome: { readonly status: number; readonly error?: string | undefined; readonly carried?: RelayedBytes },
): void {
  const { leg, request, service } = exchange;
  const { status, carried, error = carried?.error } = outcome;
  // Asked for by CONNECT, and answered.
  const asked = request.method !== undefined;
  spanOf(exchange)?.end({
    name: `${request.method ?? "connect"} ${service.name}`,
    errorType: errorKind(error) ?? failureOf(leg, status),
    attributes: {
      "network.transport": "tcp",
      "http.request.method": request.method,
      "http.response.status_code": asked ? status : undefined,
      ...carriedAttributes(carried),
      ...ownAttributes(exchange),
    },
  });
}

function spanOf(exchange: TcpExchange): CallSpan | undefined {
  exchange.span ??= exchange.tracer?.begin(exchange.leg, exchange.startedAt, exchange.parent);
  return exchange.span;
}
