import type { EgressTarget, ServiceConfig, Upstream } from "../config/config.js";

/** Where a service answers once it runs: a service that the daemon started has become a Unix socket. */
type ReachableUpstream =
  | Exclude<Upstream, { kind: "command" }>
  /** It lies outside: the outbound leg decides, and adds the target's credentials. */
  | { readonly kind: "egress"; readonly target: EgressTarget };

/** A service of the configuration whose upstream can be connected to. */
export interface RunningService extends Omit<ServiceConfig, "upstream" | "listenSocket"> {
  readonly upstream: ReachableUpstream;
  /** Absolute path. */
  readonly listenSocket?: string;
}

/** An egress target as a service: rules, the record and callers see no difference. */
export function egressService(target: EgressTarget): RunningService {
  const { name, id, listenPort } = target;
  return { name, id, protocol: "http", listenPort, upstream: { kind: "egress", target } };
}

/** The outbound leg decides where no inbound leg of ours stands before the service. */
export function decidesOutbound(service: RunningService): boolean {
  return service.upstream.kind === "mtls" || service.upstream.kind === "egress";
}
