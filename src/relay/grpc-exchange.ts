import type { Duplex } from "node:stream";
import type { CallSpan } from "../telemetry/call-tracer.js";
import type { Call } from "./exchange.js";
import type { GrpcRequest } from "./grpc-request.js";
import type { IncomingStream } from "./http2-listener.js";

/** One call of gRPC on its way through a leg. */
export interface GrpcCall extends Call {
  readonly incoming: IncomingStream;
  /** The connection it came on. */
  readonly socket: Duplex;
  /** Set once the head has been read. */
  head: GrpcRequest | undefined;
  /** Undefined where nobody collects spans. */
  span: CallSpan | undefined;
}
