import { createServer, type Server as NetServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Caller, Nobody } from "../attestation/caller.js";
import { messageOf } from "../coded-error.js";
import { type ListenerNames, outboundNames, unixSocketNames } from "../http/host-check.js";
import { type HttpListener, listenInsideOn, serveHttp } from "../http/http-listener.js";
import { listenOnLoopback } from "../http/listen.js";
import { Refusal, type RefusalCode } from "../http/refusal.js";
import type { NetworkView } from "../platform/platform.js";
import type { CallerConnections } from "./caller-connections.js";
import type { CallerPools } from "./caller-pools.js";
import type { CallerSessions } from "./caller-sessions.js";
import type { MutualTlsTarget } from "./caller-tls.js";
import {
  type Arrival,
  type AttestedConnection,
  attestConnection,
  describeProcess,
  entitlementOf,
  identityOf,
  passesRecheck,
  userOf,
} from "./calling-process.js";
import { closeAfterExpiry } from "./connection-end.js";
import { decideAndRecord } from "./decide.js";
import { recordRefusedConnection } from "./decision-record.js";
import { durably, holdDurable } from "./durable.js";
import type { EgressConnection } from "./egress-connection.js";
import {
  type Call,
  type Exchange,
  filled,
  newExchange,
  type RelayParts,
  type Step,
  type StepResult,
} from "./exchange.js";
import { forward } from "./forward.js";
import { forwardWebSocket } from "./forward-websocket.js";
import type { GrpcLeg } from "./grpc-call.js";
import { createPlainGrpcServer } from "./grpc-servers.js";
import { TICKET_HEADER } from "./headers.js";
import { listenForCallers } from "./listening-socket.js";
import { nextHop } from "./next-hop.js";
import { runPipeline } from "./pipeline.js";
import { parseRequest, readMcpMessage } from "./request-steps.js";
import { decidesOutbound, type RunningService } from "./running-service.js";
import { sendOut } from "./send-out.js";
import type { Tickets } from "./tickets.js";
import { traceCalls } from "./tracing.js";
import { hostAndPort } from "./upstream.js";
import { asksForWebSocket } from "./websocket.js";

/** The plain loopback side of a service: finds out from the kernel who calls, and goes on with that caller's SVID. */
export interface OutboundLeg {
  readonly port: number;
  /** Also takes calls on sockets that listen inside `network`, a sandbox's; the descriptors pass to it. Returns the end of that. */
  listenInside(network: NetworkView, descriptors: readonly number[]): () => Promise<void>;
  /** Closes the connections of processes that are gone, changed, or have lost their identity. */
  recheckCallers(): void;
  close(graceMs: number): Promise<void>;
}

/** Listens on `port` of 127.0.0.1 and ::1, and on `socket`. Throws CodedError `port-in-use`, `cannot-listen`, `socket-in-use`, `socket-path-taken`. */
export async function openOutboundLeg(
  parts: RelayParts,
  leg: {
    service: () => RunningService;
    /** Where the service speaks mutual TLS: our inbound leg, or itself. */
    target: () => MutualTlsTarget;
    /** The way out, where the service is an egress target. */
    egress: (() => EgressConnection) | undefined;
    port: number;
    /** Absolute path of the Unix socket to listen on too. */
    socket: string | undefined;
    pools: CallerPools;
    connections: CallerConnections;
    sessions: CallerSessions;
    tickets: Tickets;
  },
): Promise<OutboundLeg> {
  const connections = new Map<Duplex, AttestedConnection>();
  let names: ListenerNames = outboundNames(leg.port);

  const identify = identifyCaller(parts, connections);
  const goOn = leg.egress === undefined ? forwardAsCaller(parts, leg) : sendOut(parts, leg.egress);
  const trace = traceCalls(() => parts.tracer?.());
  const stepsFor = (answersTo: () => ListenerNames): Record<"relaying" | "deciding", readonly Step[]> => {
    const read = parseRequest(answersTo);
    return {
      relaying: [read, trace, identify, goOn],
      deciding: [
        ...[read, trace, identify, readMcpMessage(parts.clock)],
        ...[holdDurable(parts), decideAndRecord(parts), durably(parts, goOn)],
      ],
    };
  };
  const onPort = stepsFor(() => names);
  const onSocket = stepsFor(() => unixSocketNames(leg.service().name));

  const listeners = new Set<HttpListener>();
  const refused = (socket: Duplex, code: RefusalCode, reason: string): void => {
    const who = connections.get(socket)?.who;
    const callerDetail = who === undefined ? "" : describeProcess(who);
    const caller = entitlementOf(parts.registry, who)?.identity.name ?? "(none)";
    const user = who && userOf(who);
    recordRefusedConnection(parts, {
      leg: "outbound",
      service: leg.service(),
      caller,
      callerDetail,
      code,
      reason,
      user,
    });
  };
  const newHttpServer = (steps: Record<"relaying" | "deciding", readonly Step[]>) => {
    const server = createServer();
    const listener = serveHttp(server, {
      refused,
      maxConnections: parts.maxConnections,
      changesProtocol: (request) => asksForWebSocket(leg.service(), request),
      request(request, response, head) {
        const service = leg.service();
        const exchange = newExchange("outbound", service, request, response, head && { head });
        void runPipeline(parts, decidesOutbound(service) ? steps.deciding : steps.relaying, exchange);
      },
    });
    return { server, listener };
  };
  const newServer = (arrival?: Arrival): { server: NetServer; listener: HttpListener } => {
    const isUnix = arrival === "unix";
    const answersTo = isUnix ? () => unixSocketNames(leg.service().name) : () => names;
    const made =
      leg.service().protocol === "grpc"
        ? createPlainGrpcServer(parts, outboundGrpcLeg(parts, leg, answersTo, connections), refused)
        : newHttpServer(isUnix ? onSocket : onPort);
    made.server.on("connection", (socket: Socket) => {
      // What the listener has refused already asks nothing.
      if (socket.writableEnded) return;
      connections.set(socket, attestConnection(parts.attestor, socket, arrival));
      socket.once("close", () => connections.delete(socket));
    });
    return made;
  };
  const open = async (host: "127.0.0.1" | "::1", port: number) => {
    const { server, listener } = newServer();
    const bound = await listenOnLoopback(server, host, port, leg.service().name);
    if (bound !== undefined) listeners.add(listener);
    return bound;
  };

  let port: number;
  try {
    port = (await open("127.0.0.1", leg.port)) ?? leg.port;
    names = outboundNames(port);
    await open("::1", port);
    if (leg.socket !== undefined) {
      const { server, listener } = newServer("unix");
      await listenForCallers(server, leg.socket);
      listeners.add(listener);
    }
  } catch (error) {
    await Promise.all([...listeners].map((listener) => listener.close(0)));
    throw error;
  }

  return {
    port,
    listenInside: (network, descriptors) => listenInsideOn(descriptors, () => newServer(network), listeners),
    recheckCallers() {
      for (const [socket, { who }] of connections) {
        if (who === undefined || "nobody" in who) continue;
        if (!passesRecheck(who) || entitlementOf(parts.registry, who) === undefined) socket.destroy();
      }
    },
    async close(graceMs) {
      await Promise.all([...listeners].map((listener) => listener.close(graceMs)));
    },
  };
}

/** The caller of a connection, checked again before each request (D5), and the first identity that follows (D9). */
function identified(parts: RelayParts, call: Call, who: Caller | Nobody): undefined {
  const detail = describeProcess(who);
  call.strangerDetail = detail;
  call.strangerUser = userOf(who);
  const { identity, evidence, launchedBy } = identityOf(parts.registry, who);
  call.caller = { id: identity.id, detail, evidence, launchedBy, certificateSha256: undefined };
  return undefined;
}

function identify(
  parts: RelayParts,
  connections: ReadonlyMap<Duplex, AttestedConnection>,
  call: Call,
  socket: Duplex,
): undefined | Promise<undefined> {
  const connected = filled(connections.get(socket), "connection");
  if (connected.who !== undefined) return identified(parts, call, connected.who);
  return connected.attested.then((who) => identified(parts, call, who));
}

function identifyCaller(parts: RelayParts, connections: ReadonlyMap<Duplex, AttestedConnection>): Step {
  return (exchange) => identify(parts, connections, exchange, exchange.request.socket);
}

/** The steps of a call of gRPC, in the words of this leg. */
function outboundGrpcLeg(
  parts: RelayParts,
  leg: { service: () => RunningService; target: () => MutualTlsTarget; sessions: CallerSessions; tickets: Tickets },
  names: () => ListenerNames,
  connections: ReadonlyMap<Duplex, AttestedConnection>,
): GrpcLeg {
  return {
    ...{ leg: "outbound", scheme: "http", names, service: leg.service, decides: decidesOutbound },
    identify: (call) => identify(parts, connections, call, call.socket),
    async sendOn(call, send) {
      const { id, launchedBy, detail, evidence } = filled(call.caller, "caller");
      const target = leg.target();
      const lease = () => asCaller(() => leg.sessions.poolFor(id, launchedBy, target)).lease();
      if (call.decision !== undefined) {
        await send({ lease, scheme: "https", authority: hostAndPort(target.host, target.port), added: [] });
        return;
      }
      if (evidence === "certificate") throw new Error("the outbound leg names processes, not certificates");
      const ticket = leg.tickets.issue(id.toString(), { detail, evidence });
      try {
        await send({ lease, scheme: "https", authority: call.service.name, added: [TICKET_HEADER, ticket] });
      } finally {
        leg.tickets.discard(ticket);
      }
    },
  };
}

function forwardAsCaller(
  parts: RelayParts,
  leg: { target: () => MutualTlsTarget; pools: CallerPools; connections: CallerConnections; tickets: Tickets },
): Step {
  return async (exchange): Promise<StepResult> => {
    const caller = filled(exchange.caller, "caller");
    const target = leg.target();
    const send = (host: string, added: readonly string[]): Promise<unknown> => {
      if (exchange.webSocket !== undefined) {
        const connect = () => connectAs(parts, leg.connections, exchange, target);
        return forwardWebSocket(parts, exchange, { connect, host, added });
      }
      const dispatcher = dispatcherFor(leg.pools, exchange, target);
      return forward(parts, exchange, nextHop(parts, exchange, { dispatcher, host, added }));
    };
    if (exchange.decision !== undefined) {
      await send(hostAndPort(target.host, target.port), []);
      return "answered";
    }
    const { detail, evidence } = caller;
    if (evidence === "certificate") throw new Error("the outbound leg names processes, not certificates");
    const ticket = leg.tickets.issue(caller.id.toString(), { detail, evidence });
    try {
      await send(exchange.service.name, [TICKET_HEADER, ticket]);
    } finally {
      leg.tickets.discard(ticket);
    }
    return "answered";
  };
}

/** A connection with the caller's SVID for one WebSocket. */
async function connectAs(
  parts: RelayParts,
  connections: CallerConnections,
  exchange: Exchange,
  target: MutualTlsTarget,
): Promise<Socket> {
  const { id, launchedBy } = filled(exchange.caller, "caller");
  const { socket, peer } = await asCaller(() => connections.open(id, launchedBy, target, "http/1.1"));
  // Our own inbound leg is here for as long as we are.
  if (decidesOutbound(exchange.service)) closeAfterExpiry(parts.clock, peer.notAfter, socket);
  return socket;
}

function dispatcherFor(pools: CallerPools, exchange: Exchange, target: MutualTlsTarget) {
  const { id, launchedBy } = filled(exchange.caller, "caller");
  return asCaller(() => pools.dispatcherFor(id, launchedBy, target));
}

/** What needs the caller's SVID and throws where there is none. */
function asCaller<Value>(use: () => Value): Value {
  try {
    return use();
  } catch (cause) {
    throw new Refusal("not-ready", 503, `no certificate for the caller now: ${messageOf(cause)}`, { cause });
  }
}
