import type { SpanFacts } from "../telemetry/call-tracer.js";
import { filled, type RelayParts } from "./exchange.js";
import type { GrpcCall } from "./grpc-exchange.js";
import { ownAttributes, parentIn } from "./tracing.js";

/** What is an error for who answers; for who calls everything but OK is (semantic conventions for gRPC). */
const SERVER_ERRORS: ReadonlySet<number> = new Set([2, 4, 12, 13, 14, 15]);

/** Begins the span of a call whose head has been read, and ends it at the latest with the caller's stream. */
export function traceGrpcCall({ tracer }: RelayParts, call: GrpcCall): void {
  const parent = () => parentIn(filled(call.head, "head").raw);
  call.span = tracer?.()?.begin(call.leg, call.startedAt, parent());
  if (call.span !== undefined) call.incoming.stream.once("close", () => endGrpcSpan(call));
}

/** Ends the span of a call whose answer is out. */
export function endGrpcSpan(call: GrpcCall): void {
  call.span?.end(factsOf(call));
}

function factsOf(call: GrpcCall): SpanFacts {
  const { leg, incoming, target } = call;
  const [, service = "", method = ""] = target?.path.split("/") ?? [];
  const { sentHeaders, sentTrailers } = incoming.stream;
  const said = sentTrailers?.["grpc-status"] ?? sentHeaders?.["grpc-status"];
  const status = said === undefined ? undefined : Number(said);
  return {
    name: `${service}/${method}`,
    errorType: errorOf(leg, status),
    attributes: {
      "rpc.system": "grpc",
      "rpc.service": service,
      "rpc.method": method,
      "rpc.grpc.status_code": status,
      ...ownAttributes(call),
    },
  };
}

function errorOf(leg: GrpcCall["leg"], status: number | undefined): string | undefined {
  if (status === undefined) return "aborted";
  const isError = leg === "outbound" ? status !== 0 : SERVER_ERRORS.has(status);
  return isError ? String(status) : undefined;
}
