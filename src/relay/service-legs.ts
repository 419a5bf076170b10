import { isDeepStrictEqual } from "node:util";
import type { CallerConnections } from "./caller-connections.js";
import type { CallerPools } from "./caller-pools.js";
import type { CallerSessions } from "./caller-sessions.js";
import type { MutualTlsTarget } from "./caller-tls.js";
import { freeDerivedPort } from "./derived-port.js";
import { connectEgress, type EgressConnection } from "./egress-connection.js";
import type { RelayParts } from "./exchange.js";
import { type InboundLeg, openInboundLeg } from "./inbound.js";
import { type OutboundLeg, openOutboundLeg } from "./outbound.js";
import { decidesOutbound, type RunningService } from "./running-service.js";
import { openTcpInboundLeg } from "./tcp-inbound.js";
import { openTcpOutboundLeg, type TcpLeg } from "./tcp-outbound.js";
import type { Tickets } from "./tickets.js";
import { connectUpstream, type UpstreamConnection } from "./upstream.js";

/** One service as it runs: its legs, and the way on from them. */
export interface ServiceLegs {
  service: RunningService;
  upstream: UpstreamConnection | undefined;
  readonly inbound: (InboundLeg & Partial<TcpLeg>) | undefined;
  readonly outbound: OutboundLeg & Partial<TcpLeg>;
  egress: EgressConnection | undefined;
  readonly target: () => MutualTlsTarget;
}

/** Opens both legs of `service`. Throws as `Relay.start`; nothing stays open then. */
export async function openLegs(
  parts: RelayParts,
  service: RunningService,
  shared: {
    pools: CallerPools;
    connections: CallerConnections;
    sessions: CallerSessions;
    tickets: Tickets;
    answerTimeoutMs: number;
    taken: readonly number[];
  },
): Promise<ServiceLegs> {
  const { resolve } = parts;
  const { answerTimeoutMs } = shared;
  const egress =
    service.upstream.kind === "egress"
      ? connectEgress(service.upstream.target, { answerTimeoutMs, resolve })
      : undefined;
  const state = { service, upstream: undefined as UpstreamConnection | undefined, egress };
  const current = () => state.service;
  let inbound: (InboundLeg & Partial<TcpLeg>) | undefined;
  if (!decidesOutbound(service) && service.protocol === "tcp") {
    inbound = await openTcpInboundLeg(parts, { service: current, tickets: shared.tickets });
  } else if (!decidesOutbound(service)) {
    state.upstream = connectUpstream(service, shared.answerTimeoutMs);
    inbound = await openInboundLeg(parts, {
      service: current,
      upstream: () => state.upstream as UpstreamConnection,
      tickets: shared.tickets,
    });
  }
  const target = (): MutualTlsTarget => {
    const { upstream, id } = state.service;
    if (inbound !== undefined) return { host: inbound.host, port: inbound.port, expected: id };
    if (upstream.kind !== "mtls") throw new Error("a service without inbound leg has an mtls upstream");
    return { host: upstream.host, port: upstream.port, expected: id };
  };
  try {
    const port = service.listenPort ?? freeDerivedPort(parts.projectDirectory, service.name, shared.taken);
    const { pools, connections, sessions, tickets } = shared;
    const to = { service: current, target, port, socket: service.listenSocket, tickets };
    const wayOut = egress === undefined ? undefined : () => state.egress ?? egress;
    const outbound =
      service.protocol === "tcp"
        ? await openTcpOutboundLeg(parts, to)
        : await openOutboundLeg(parts, { ...to, pools, connections, sessions, egress: wayOut });
    return Object.assign(state, { inbound, outbound, target });
  } catch (error) {
    await inbound?.close(0);
    await state.upstream?.destroy();
    await egress?.destroy();
    throw error;
  }
}

/** True if `next` can take the place of `old` while the listeners stay. */
export function keepsItsListeners(old: RunningService, next: RunningService): boolean {
  return (
    old.id.equals(next.id) &&
    old.listenPort === next.listenPort &&
    old.listenSocket === next.listenSocket &&
    old.protocol === next.protocol &&
    decidesOutbound(old) === decidesOutbound(next) &&
    (old.upstream.kind === "egress") === (next.upstream.kind === "egress")
  );
}

/** Goes on with `service` behind the same listeners: calls that run finish on the old way. */
export function replaceService(
  { resolve }: RelayParts,
  legs: ServiceLegs | undefined,
  service: RunningService,
  answerTimeoutMs: number,
): void {
  if (legs === undefined) return;
  const moved = !isDeepStrictEqual(legs.service.upstream, service.upstream);
  legs.service = service;
  if (moved && service.upstream.kind === "egress") {
    legs.egress?.retire();
    legs.egress = connectEgress(service.upstream.target, { answerTimeoutMs, resolve });
  }
  // A tcp service is connected to anew for each connection.
  if (!moved || decidesOutbound(service) || service.protocol === "tcp") return;
  legs.upstream?.retire();
  legs.upstream = connectUpstream(service, answerTimeoutMs);
}

export async function endLegs({ outbound, inbound, upstream, egress }: ServiceLegs, graceMs: number): Promise<void> {
  await outbound.close(graceMs);
  await inbound?.close(graceMs);
  await upstream?.destroy();
  await egress?.destroy();
}
