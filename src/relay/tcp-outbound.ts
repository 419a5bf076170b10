import { createServer, type Socket } from "node:net";
import type { Caller } from "../attestation/caller.js";
import { type HttpListener, listenInsideOn } from "../http/http-listener.js";
import { listenOnLoopback } from "../http/listen.js";
import { stillTrusted } from "../http/mutual-tls.js";
import type { MutualTlsTarget } from "./caller-tls.js";
import {
  type Arrival,
  attestConnection,
  describeProcess,
  entitlementOf,
  identityOf,
  passesRecheck,
  userOf,
} from "./calling-process.js";
import { recordRefusedConnection } from "./decision-record.js";
import type { RelayParts } from "./exchange.js";
import { listenForCallers } from "./listening-socket.js";
import { OpenConnection } from "./open-connection.js";
import type { OutboundLeg } from "./outbound.js";
import { decidesOutbound, type RunningService } from "./running-service.js";
import { boundConnections, connectAsCaller, plainEnd, type ServiceConnection, tcpListener } from "./tcp-ends.js";
import { decideConnection, deniedSince, endGently, newTcpExchange, recordEnd, recordRefusal } from "./tcp-exchange.js";
import { ALPN, preface } from "./tcp-protocol.js";
import { traceConnection, traceOf } from "./tcp-tracing.js";
import type { Tickets } from "./tickets.js";

/** A leg of a tcp service: its connections outlive the policy that they were decided by. */
export interface TcpLeg {
  /** Closes the connections that would be denied now. */
  recheckDecisions(): void;
}

/** An attested connection with the process behind it and the service before it, as far as it has come. */
interface Carried {
  readonly connection: OpenConnection;
  caller: Caller | undefined;
  service: ServiceConnection | undefined;
}

interface Leg {
  readonly service: () => RunningService;
  /** Where the service takes mutual TLS: our inbound leg, or itself. */
  readonly target: () => MutualTlsTarget;
  readonly port: number;
  /** Absolute path of the Unix socket to listen on too. */
  readonly socket: string | undefined;
  readonly tickets: Tickets;
}

/** Waiting for attestation, or lingering after a refusal, beside those that are counted. */
const MAX_BESIDE = 512;

/**
 * The plain side of a tcp service: finds out from the kernel who connects, and carries the bytes on with that caller's SVID. Listens on `port` of
 * 127.0.0.1 and ::1, and on `socket`. Throws CodedError `port-in-use`, `cannot-listen`, `socket-in-use`, `socket-path-taken`.
 */
export async function openTcpOutboundLeg(parts: RelayParts, leg: Leg): Promise<OutboundLeg & TcpLeg> {
  const open = new Set<Carried>();
  const listeners = new Set<HttpListener>();
  const newServer = (arrival?: Arrival) => {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      void carry(parts, leg, open, socket, arrival);
    });
    boundConnections(server, () => maxOf(leg.service()) + MAX_BESIDE);
    return { server, listener: tcpListener(server) };
  };
  const listen = async (host: "127.0.0.1" | "::1", port: number) => {
    const { server, listener } = newServer();
    const bound = await listenOnLoopback(server, host, port, leg.service().name);
    if (bound !== undefined) listeners.add(listener);
    return bound;
  };
  const closeListeners = (graceMs: number) => Promise.all([...listeners].map((listener) => listener.close(graceMs)));
  const forgetBundles = parts.bundles.onBundleChange(() => {
    for (const { connection, service } of open) {
      if (service !== undefined && !stillTrusted(service.peer, parts.bundles, parts.clock)) {
        connection.breakOff("server-distrusted");
      }
    }
  });

  let port: number;
  try {
    port = (await listen("127.0.0.1", leg.port)) ?? leg.port;
    await listen("::1", port);
    if (leg.socket !== undefined) {
      const { server, listener } = newServer("unix");
      await listenForCallers(server, leg.socket);
      listeners.add(listener);
    }
  } catch (error) {
    forgetBundles();
    await closeListeners(0);
    throw error;
  }

  return {
    port,
    listenInside: (network, descriptors) => listenInsideOn(descriptors, () => newServer(network), listeners),
    recheckCallers() {
      for (const { connection, caller } of open) {
        if (caller !== undefined && !isStill(parts, connection, caller)) connection.breakOff("identity-lost");
      }
    },
    recheckDecisions() {
      if (!decidesOutbound(leg.service())) return;
      for (const { connection } of open) breakOffIfDenied(parts, connection);
    },
    async close(graceMs) {
      forgetBundles();
      await closeListeners(graceMs);
    },
  };
}

/** What was allowed under another policy goes on only if it is allowed under this one. */
export function breakOffIfDenied(parts: RelayParts, connection: OpenConnection): void {
  if (connection.exchange.decision?.allowed !== true) return;
  void deniedSince(parts, connection.exchange).then((reason) => {
    if (reason !== undefined) connection.breakOff(`denied-since: ${reason}`);
  });
}

export function maxOf({ connections }: RunningService): number {
  return connections?.max ?? Number.MAX_SAFE_INTEGER;
}

/** The same program of the same process, and still first of all the identity that the connection was opened as. */
export function isStill(parts: RelayParts, { exchange }: OpenConnection, caller: Caller): boolean {
  const first = passesRecheck(caller) ? entitlementOf(parts.registry, caller) : undefined;
  return first !== undefined && exchange.caller?.id.equals(first.identity.id) === true;
}

/** One connection from its accept to its end. */
async function carry(parts: RelayParts, leg: Leg, open: Set<Carried>, socket: Socket, arrival: Arrival): Promise<void> {
  const service = leg.service();
  const exchange = newTcpExchange("outbound", service, parts);
  const calling = attestConnection(parts.attestor, socket, arrival);
  const caller = plainEnd(socket);
  // Until its bytes are relayed nobody else listens.
  socket.on("error", () => socket.destroy());
  if (open.size >= maxOf(service)) {
    const reason = `${service.name} has ${open.size} connections open, and takes no more`;
    const code = "connections-exhausted";
    recordRefusedConnection(parts, { leg: "outbound", service, caller: "(none)", callerDetail: "", code, reason });
    endGently(socket);
    return;
  }
  traceConnection(exchange);
  const connection = new OpenConnection(exchange, caller, parts.clock);
  const carried: Carried = { connection, caller: undefined, service: undefined };
  open.add(carried);
  let ticket: string | undefined;
  try {
    const who = await calling.attested;
    exchange.strangerDetail = describeProcess(who);
    exchange.strangerUser = userOf(who);
    const { identity, evidence, launchedBy } = identityOf(parts.registry, who);
    const detail = describeProcess(who);
    exchange.caller = { id: identity.id, detail, evidence, launchedBy, certificateSha256: undefined };
    if (!("nobody" in who)) carried.caller = who;
    const decides = decidesOutbound(service);
    if (decides) await decideConnection(parts, exchange, () => connection.isOver);
    const alpn = decides ? ALPN.plain : ALPN.ticketed;
    const to = { name: service.name, target: leg.target(), alpn };
    carried.service = await connectAsCaller(parts, exchange.caller, to);
    connection.requireOpen();
    if (!decides) {
      ticket = leg.tickets.issue(identity.id.toString(), { detail, evidence, trace: traceOf(exchange) });
      carried.service.stream.write(preface(ticket));
    }
    const idle = decides ? service.connections?.idleSeconds : undefined;
    const outcome = await connection.relayTo(carried.service, idle);
    recordEnd(parts, exchange, outcome);
  } catch (thrown) {
    carried.service?.reset();
    recordRefusal(parts, exchange, thrown);
    endGently(socket);
  } finally {
    open.delete(carried);
    if (ticket !== undefined) leg.tickets.discard(ticket);
  }
}
