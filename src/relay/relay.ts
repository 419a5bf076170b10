import { CodedError } from "../coded-error.js";
import type { NetworkView } from "../platform/platform.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import { createCallerConnections } from "./caller-connections.js";
import { createCallerPools } from "./caller-pools.js";
import { createCallerSessions } from "./caller-sessions.js";
import { answerTimeoutOf, type RelayParts } from "./exchange.js";
import { createOpenWebSockets } from "./open-websocket.js";
import { createProxyListener } from "./proxy-listener.js";
import { isTunnelled, type RunningService } from "./running-service.js";
import { endLegs, keepsItsListeners, openLegs, replaceService, type ServiceLegs } from "./service-legs.js";
import { createTickets } from "./tickets.js";

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

export function createRelay(given: RelayParts): Relay {
  const webSockets = createOpenWebSockets(given.clock);
  const parts: RelayParts = { ...given, webSockets };
  const answerTimeoutMs = answerTimeoutOf(parts);
  const tickets = createTickets();
  const pools = createCallerPools({ ...parts, answerTimeoutMs });
  const connections = createCallerConnections(parts);
  const sessions = createCallerSessions({ svids: parts.svids, connections });
  const legs = new Map<string, ServiceLegs>();
  const proxy = createProxyListener(parts);
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
    proxy.leg()?.recheckCallers();
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
          const taken = [...portsOf([...legs.values(), ...opened]), ...proxyPorts()];
          opened.push(
            await openLegs(parts, service, { pools, connections, sessions, tickets, answerTimeoutMs, taken }),
          );
        }
      }
      await proxy.change(all, portsOf([...legs.values(), ...opened]));
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
    proxy.leg()?.recheckDecisions();
    const wanted = new Set(services.map(({ name }) => name));
    const gone = [...legs].filter(([name]) => !wanted.has(name));
    await Promise.all(gone.map(([name, one]) => closeLegs(name, one, 0)));
  }

  async function closeLegs(name: string, one: ServiceLegs, graceMs: number): Promise<void> {
    legs.delete(name);
    if (one.egress === undefined) {
      pools.retireTarget(one.target());
      sessions.retireTarget(one.target());
    }
    await endLegs(one, graceMs);
  }

  const proxyPorts = () => [proxy.leg()?.port].filter((port) => port !== undefined);

  const proxyUrl = () => proxyPorts().map((port) => `http://127.0.0.1:${port}`)[0];

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
      if (one === undefined && proxy.targets().some((target) => target.name === name && isTunnelled(target)))
        return proxyUrl();
      return one?.egress === undefined ? undefined : `http://127.0.0.1:${one.outbound.port}`;
    },
    proxyUrl,
    ports: () => [
      ...[...legs.values()].flatMap(({ outbound, inbound }) => [outbound.port, ...(inbound ? [inbound.port] : [])]),
      ...proxyPorts(),
    ],
    listenInside(network, descriptors) {
      const on = (port: number) => descriptors.get(port) ?? [];
      const ends = [...legs.values()].flatMap(({ outbound, inbound }) => [
        outbound.listenInside(network, on(outbound.port)),
        ...(inbound ? [inbound.listenInside(on(inbound.port))] : []),
      ]);
      const leg = proxy.leg();
      if (leg !== undefined) ends.push(leg.listenInside(network, on(leg.port)));
      return async () => {
        await Promise.all(ends.map((end) => end()));
      };
    },
    async close({ graceMs }) {
      closed = true;
      await updating;
      watchIdentities();
      webSockets.goAway();
      // Callers first: what they wait for still runs behind them.
      await Promise.all(
        [proxy.leg(), ...[...legs.values()].map(({ outbound }) => outbound)].map((leg) => leg?.close(graceMs)),
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
