import { status } from "@grpc/grpc-js";
import type { Connections } from "./connections.js";
import { type HealthServer, HealthCheckResponse_ServingStatus as Serving } from "./generated/health.js";
import { StatusError } from "./grpc-status.js";
import type { OpenStreams } from "./open-streams.js";

export interface HealthDependencies {
  readonly connections: Pick<Connections, "find">;
  readonly ready: () => boolean;
  /** Calls back whenever `ready` may have changed. */
  readonly onReadiness: (listener: () => void) => () => void;
  readonly streams: OpenStreams;
}

const SERVICES = new Set(["", "SpiffeWorkloadAPI"]);

/** `grpc.health.v1`, on the same socket and without the security header (EP-6). */
export function healthService({ connections, ready, onReadiness, streams }: HealthDependencies): HealthServer {
  const now = (): { status: Serving } => ({ status: ready() ? Serving.SERVING : Serving.NOT_SERVING });
  return {
    check(call, callback) {
      connections.find(call.getPeer())?.spoke();
      if (SERVICES.has(call.request.service)) callback(null, now());
      else callback(new StatusError(status.NOT_FOUND, `no service ${call.request.service}`).toServiceError());
    },
    watch: streams.handle(async (call) => {
      connections.find(call.getPeer())?.spoke();
      return {
        read: () => (SERVICES.has(call.request.service) ? now() : { status: Serving.SERVICE_UNKNOWN }),
        subscribe: onReadiness,
        same: (previous, next) => previous.status === next.status,
      };
    }),
  };
}
