import type { EgressTarget, ServiceConfig, Upstream } from "../config/config.js";
import { STANDARD_TCP_CONNECTIONS } from "../config/tcp-schema.js";

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

/** An egress target as a service: rules, the record and callers see no difference. Where it says `connect`, whole connections go there, from the proxy at `proxyPort`. */
export function egressService(target: EgressTarget, proxyPort?: number): RunningService {
  const { name, id, listenPort } = target;
  if (target.connect === true) {
    const connections = STANDARD_TCP_CONNECTIONS;
    return { name, id, protocol: "tcp", listenPort: proxyPort, connections, upstream: { kind: "egress", target } };
  }
  return { name, id, protocol: "http", listenPort, upstream: { kind: "egress", target } };
}

/** It has no address of its own here: its callers come through the proxy, by CONNECT. */
export function isTunnelled({ upstream }: RunningService): boolean {
  return upstream.kind === "egress" && upstream.target.connect === true;
}

/** The outbound leg decides where no inbound leg of ours stands before the service. */
export function decidesOutbound(service: RunningService): boolean {
  return service.upstream.kind === "mtls" || service.upstream.kind === "egress";
}
