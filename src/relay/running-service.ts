import type { ServiceConfig, Upstream } from "../config/config.js";

/** Where a service answers once it runs: a service that the daemon started has become a Unix socket. */
type ReachableUpstream = Exclude<Upstream, { kind: "command" }>;

/** A service of the configuration whose upstream can be connected to. */
export interface RunningService extends Omit<ServiceConfig, "upstream" | "listenSocket"> {
  readonly upstream: ReachableUpstream;
  /** Absolute path. */
  readonly listenSocket?: string;
}

/** The outbound leg decides where no inbound leg of ours stands before the service. */
export function decidesOutbound(service: RunningService): boolean {
  return service.upstream.kind === "mtls";
}
