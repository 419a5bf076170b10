import { isDeepStrictEqual } from "node:util";
import { CodedError } from "../coded-error.js";
import { derivedPort } from "../http/listen.js";
import type { NetworkView } from "../platform/platform.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import { type CallerConnections, createCallerConnections } from "./caller-connections.js";
import { type CallerPools, createCallerPools } from "./caller-pools.js";
import { type CallerSessions, createCallerSessions } from "./caller-sessions.js";
import type { MutualTlsTarget } from "./caller-tls.js";
import { openConnectProxy } from "./connect-proxy.js";
import { connectEgress, type EgressConnection } from "./egress-connection.js";
import { answerTimeoutOf, type RelayParts } from "./exchange.js";
import { type InboundLeg, openInboundLeg } from "./inbound.js";
import { type OutboundLeg, openOutboundLeg } from "./outbound.js";
import { decidesOutbound, isTunnelled, type RunningService } from "./running-service.js";
import { openTcpInboundLeg } from "./tcp-inbound.js";
import { openTcpOutboundLeg, type TcpLeg } from "./tcp-outbound.js";
import { createTickets, type Tickets } from "./tickets.js";
import { connectUpstream, type UpstreamConnection } from "./upstream.js";

/** Where a service is reached. */
interface ServiceAddresses {
  /** Base URL of the outbound leg, for programs that know nothing of TLS: `http://127.0.0.1:21234`; `tcp://…` of a tcp service. */
  readonly url: string;
  /** `127.0.0.1:21234`. */
  readonly address: string;
  /** Path of the Unix socket on which the outbound leg listens too. */
  readonly socket: string | undefined;
  /** Where it takes mutual TLS: the inbound leg, or the service itself. */
  readonly mtls: { readonly host: string; readonly port: number; readonly ofRelay: boolean };
}

/** The enforcement point between agents and services. */
export interface Relay {
  /** Opens both legs of each service. Throws CodedError `port-in-use`, `cannot-listen`, `not-ready`, `identity-unknown`; nothing stays open then. */
  start(services: readonly RunningService[]): Promise<void>;
  /** Goes over to another list of services; what did not change keeps its listeners and connections. Throws as `start`: then nothing of the new list runs, and of the old one only what had to give up its listeners is gone. */
  update(services: readonly RunningService[]): Promise<void>;
  /** Undefined for a service that is not running. */
  addressesOf(name: string): ServiceAddresses | undefined;
  /** Base URL of the outbound leg of an egress target, or of the proxy where it is reached by CONNECT; undefined where there is none of this name. */
  egressUrlOf(name: string): string | undefined;
  /** Where CONNECT is taken: `http://127.0.0.1:21234`; undefined where no target is reached by it. */
  proxyUrl(): string | undefined;
  /** The ports of both legs of each service, where callers find it. */
  ports(): readonly number[];
  /**
   * Takes calls on sockets that listen on `ports()` inside `network`: on the outbound legs callers are named by the tables of that network, on the inbound
   * legs by their certificates. The descriptors pass to the relay.
   * Returns the end of that; a service that goes takes its own with it.
   */
  listenInside(network: NetworkView, descriptors: ReadonlyMap<number, readonly number[]>): () => Promise<void>;
  /** Stops listening, lets calls finish for `graceMs`, then cuts them. Idempotent. */
  close(options: { graceMs: number }): Promise<void>;
}

interface ServiceLegs {
  service: RunningService;
  upstream: UpstreamConnection | undefined;
  readonly inbound: (InboundLeg & Partial<TcpLeg>) | undefined;
  readonly outbound: OutboundLeg & Partial<TcpLeg>;
  egress: EgressConnection | undefined;
  readonly target: () => MutualTlsTarget;
}

interface ProxyLeg {
  readonly leg: OutboundLeg & TcpLeg;
  /** As the configuration says it. */
  readonly listenPort: number | undefined;
}

/** Its derived port follows from this, which is no name of a service. */
const PROXY_PORT = "(proxy)";

export function createRelay(parts: RelayParts): Relay {
  const answerTimeoutMs = answerTimeoutOf(parts);
  const tickets = createTickets();
  const pools = createCallerPools({ ...parts, answerTimeoutMs });
  const connections = createCallerConnections(parts);
  const sessions = createCallerSessions({ svids: parts.svids, connections });
  const legs = new Map<string, ServiceLegs>();
  /** Egress targets, by whatever way they are reached. */
  let targets: readonly RunningService[] = [];
  let proxy: ProxyLeg | undefined;
  let subscriptions: (() => void)[] = [];
  let closed = false;
  let updating: Promise<unknown> = Promise.resolve();

  /** D24: local callers are checked again at each rotation, also those whose only request is a long stream. */
  function watchIdentities(): void {
    for (const unsubscribe of subscriptions) unsubscribe();
    if (closed) return;
    const { registry } = parts;
    const identities = [...registry.identities, ...registry.instances()];
    subscriptions = identities.map(({ id }) => parts.svids.onRotation(id, checkCallers));
    subscriptions.push(
      parts.registry.onChange(() => {
        checkCallers();
        watchIdentities();
      }),
    );
  }

  function checkCallers(): void {
    const isKnown = (id: SpiffeId) => parts.registry.find(id.toString()) !== undefined && !parts.registry.isRevoked(id);
    pools.retainIdentities(isKnown);
    connections.retainIdentities(isKnown);
    for (const { outbound } of legs.values()) outbound.recheckCallers();
    proxy?.leg.recheckCallers();
  }

  /** One after the other: a reload that comes during another must find its outcome. */
  function update(services: readonly RunningService[]): Promise<void> {
    const next = updating.then(() => change(services));
    updating = next.catch(() => undefined);
    return next;
  }

  async function change(all: readonly RunningService[]): Promise<void> {
    if (closed) throw new CodedError("relay-closed", "the relay is closed");
    const services = all.filter((service) => !isTunnelled(service));
    const opened: ServiceLegs[] = [];
    const replaced = new Map<string, RunningService>();
    try {
      for (const service of services) {
        const old = legs.get(service.name);
        if (old !== undefined && keepsItsListeners(old.service, service)) replaced.set(service.name, service);
        else {
          // The old legs of a service that moves must let go of its port first.
          if (old !== undefined) await closeLegs(service.name, old, 0);
          const taken = [...portsOf([...legs.values(), ...opened]), ...(proxy === undefined ? [] : [proxy.leg.port])];
          opened.push(
            await openLegs(parts, service, { pools, connections, sessions, tickets, answerTimeoutMs, taken }),
          );
        }
      }
      await changeProxy(all, portsOf([...legs.values(), ...opened]));
    } catch (error) {
      await Promise.all(opened.map((one) => endLegs(one, 0)));
      throw error;
    }
    for (const [name, service] of replaced) replaceService(parts, legs.get(name), service, answerTimeoutMs);
    for (const one of opened) legs.set(one.service.name, one);
    // Whatever changed may be the policy: connections that were decided once are decided again.
    for (const { inbound, outbound } of legs.values()) {
      inbound?.recheckDecisions?.();
      outbound.recheckDecisions?.();
    }
    proxy?.leg.recheckDecisions();
    const wanted = new Set(services.map(({ name }) => name));
    const gone = [...legs].filter(([name]) => !wanted.has(name));
    await Promise.all(gone.map(([name, one]) => closeLegs(name, one, 0)));
  }

  /** One listener for all targets that are reached by CONNECT; it stays where it is as long as there is one, and its port the same. */
  async function changeProxy(all: readonly RunningService[], taken: readonly number[]): Promise<void> {
    const before = targets;
    const [first] = all.filter(isTunnelled);
    if (first !== undefined && proxy !== undefined && proxy.listenPort === first.listenPort) {
      targets = outside(all);
      return;
    }
    const old = proxy;
    proxy = undefined;
    await old?.leg.close(0);
    targets = outside(all);
    if (first === undefined) return;
    try {
      const port = first.listenPort ?? freeDerivedPort(parts.projectDirectory, PROXY_PORT, taken);
      const leg = await openConnectProxy(parts, { port, any: first, services: () => targets });
      proxy = { leg, listenPort: first.listenPort };
    } catch (error) {
      targets = before;
      throw error;
    }
  }

  async function closeLegs(name: string, one: ServiceLegs, graceMs: number): Promise<void> {
    legs.delete(name);
    if (one.egress === undefined) {
      pools.retireTarget(one.target());
      sessions.retireTarget(one.target());
    }
    await endLegs(one, graceMs);
  }

  const proxyUrl = () => (proxy === undefined ? undefined : `http://127.0.0.1:${proxy.leg.port}`);

  return {
    async start(services) {
      await update(services);
      watchIdentities();
    },
    update,
    addressesOf(name) {
      const one = legs.get(name);
      if (one === undefined || one.egress !== undefined) return undefined;
      const { host, port } = one.target();
      const mtls = { host, port, ofRelay: one.inbound !== undefined };
      const address = `127.0.0.1:${one.outbound.port}`;
      const scheme = one.service.protocol === "tcp" ? "tcp" : "http";
      return { url: `${scheme}://${address}`, address, socket: one.service.listenSocket, mtls };
    },
    egressUrlOf(name) {
      const one = legs.get(name);
      if (one === undefined && targets.some((target) => target.name === name && isTunnelled(target))) return proxyUrl();
      return one?.egress === undefined ? undefined : `http://127.0.0.1:${one.outbound.port}`;
    },
    proxyUrl,
    ports: () => [
      ...[...legs.values()].flatMap(({ outbound, inbound }) => [outbound.port, ...(inbound ? [inbound.port] : [])]),
      ...(proxy === undefined ? [] : [proxy.leg.port]),
    ],
    listenInside(network, descriptors) {
      const on = (port: number) => descriptors.get(port) ?? [];
      const ends = [...legs.values()].flatMap(({ outbound, inbound }) => [
        outbound.listenInside(network, on(outbound.port)),
        ...(inbound ? [inbound.listenInside(on(inbound.port))] : []),
      ]);
      if (proxy !== undefined) ends.push(proxy.leg.listenInside(network, on(proxy.leg.port)));
      return async () => {
        await Promise.all(ends.map((end) => end()));
      };
    },
    async close({ graceMs }) {
      closed = true;
      await updating;
      watchIdentities();
      // Callers first: what they wait for still runs behind them.
      await Promise.all(
        [proxy?.leg, ...[...legs.values()].map(({ outbound }) => outbound)].map((leg) => leg?.close(graceMs)),
      );
      await pools.destroy();
      connections.destroy();
      await Promise.all([...legs.values()].map((one) => endLegs(one, graceMs)));
      legs.clear();
    },
  };
}

function portsOf(legs: readonly ServiceLegs[]): readonly number[] {
  return legs.map(({ outbound }) => outbound.port);
}

function outside(services: readonly RunningService[]): readonly RunningService[] {
  return services.filter(({ upstream }) => upstream.kind === "egress");
}

async function openLegs(
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

/** Two services of a project whose names hash alike: the later one in the file moves on. A port that anybody else holds is an error (D26). */
function freeDerivedPort(projectDirectory: string, name: string, taken: readonly number[]): number {
  for (let attempt = 0; ; attempt += 1) {
    const port = derivedPort(projectDirectory, name, attempt);
    if (!taken.includes(port)) return port;
  }
}

function keepsItsListeners(old: RunningService, next: RunningService): boolean {
  return (
    old.id.equals(next.id) &&
    old.listenPort === next.listenPort &&
    old.listenSocket === next.listenSocket &&
    old.protocol === next.protocol &&
    decidesOutbound(old) === decidesOutbound(next) &&
    (old.upstream.kind === "egress") === (next.upstream.kind === "egress")
  );
}

function replaceService(
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

async function endLegs({ outbound, inbound, upstream, egress }: ServiceLegs, graceMs: number): Promise<void> {
  await outbound.close(graceMs);
  await inbound?.close(graceMs);
  await upstream?.destroy();
  await egress?.destroy();
}
