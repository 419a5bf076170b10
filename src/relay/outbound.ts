import type { IncomingMessage, ServerResponse } from "node:http";
import type { Server as NetServer, Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Caller, Nobody } from "../attestation/caller.js";
import { codeOf, messageOf } from "../coded-error.js";
import { type ListenerNames, outboundNames } from "../http/host-check.js";
import { type HttpListener, httpListenerOptions, listenInsideOn, prepareHttpListener } from "../http/http-listener.js";
import { listenOnLoopback } from "../http/listen.js";
import { Refusal, type RefusalCode } from "../http/refusal.js";
import { createServer } from "../platform/node-http.js";
import type { NetworkView } from "../platform/platform.js";
import type { CallerConnections } from "./caller-connections.js";
import type { CallerPools } from "./caller-pools.js";
import type { CallerSessions } from "./caller-sessions.js";
import type { MutualTlsTarget } from "./caller-tls.js";
import { closeAfterExpiry } from "./connection-end.js";
import { decideAndRecord } from "./decide.js";
import { recordRefusedConnection } from "./decision-record.js";
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
import { nextHop } from "./next-hop.js";
import { runPipeline } from "./pipeline.js";
import { parseRequest, readMcpMessage } from "./request-steps.js";
import { decidesOutbound, type RunningService } from "./running-service.js";
import type { Tickets } from "./tickets.js";
import { hostAndPort } from "./upstream.js";
import { asksForWebSocket, onWebSocketRequest } from "./websocket.js";

/** The plain loopback side of a service: finds out from the kernel who calls, and goes on with that caller's SVID. */
export interface OutboundLeg {
  readonly port: number;
  /** Also takes calls on sockets that listen inside `network`, a sandbox's; the descriptors pass to it. Returns the end of that. */
  listenInside(network: NetworkView, descriptors: readonly number[]): () => Promise<void>;
  /** Closes the connections of processes that are gone, changed, or have lost their identity. */
  recheckCallers(): void;
  close(graceMs: number): Promise<void>;
}

interface Connected {
  readonly attested: Promise<Caller | Nobody>;
  /** Set once `attested` has settled, so that later requests on the connection need not wait a turn. */
  who: Caller | Nobody | undefined;
}

/** Listens on `port` of 127.0.0.1 and ::1. Throws CodedError `port-in-use`, `cannot-listen`. */
export async function openOutboundLeg(
  parts: RelayParts,
  leg: {
    service: () => RunningService;
    /** Where the service speaks mutual TLS: our inbound leg, or itself. */
    target: () => MutualTlsTarget;
    port: number;
    pools: CallerPools;
    connections: CallerConnections;
    sessions: CallerSessions;
    tickets: Tickets;
  },
): Promise<OutboundLeg> {
  const connections = new Map<Duplex, Connected>();
  let names: ListenerNames = outboundNames(leg.port);

  const read = parseRequest(() => names);
  const identify = identifyCaller(parts, connections);
  const goOn = forwardAsCaller(parts, leg);
  const relaying: readonly Step[] = [read, identify, goOn];
  const deciding: readonly Step[] = [read, identify, readMcpMessage(parts.clock), decideAndRecord(parts), goOn];

  const listeners = new Set<HttpListener>();
  const refused = (socket: Duplex, code: RefusalCode, reason: string) => {
    const who = connections.get(socket)?.who;
    const callerDetail = who === undefined ? "" : describe(who);
    const caller = entitlementOf(parts, who)?.identity.name ?? "(none)";
    recordRefusedConnection(parts, { leg: "outbound", service: leg.service(), caller, callerDetail, code, reason });
  };
  const run = (request: IncomingMessage, response: ServerResponse, head?: Buffer) => {
    const service = leg.service();
    const exchange = newExchange("outbound", service, request, response, head && { head });
    void runPipeline(parts, decidesOutbound(service) ? deciding : relaying, exchange);
  };
  const newHttpServer = () => {
    const shouldUpgradeCallback = (request: IncomingMessage) => asksForWebSocket(leg.service(), request);
    const server = createServer({ ...httpListenerOptions, shouldUpgradeCallback }, (request, response) =>
      run(request, response),
    );
    const listener = prepareHttpListener(server, refused);
    onWebSocketRequest(server, refused, run);
    return { server, listener };
  };
  const grpc = outboundGrpcLeg(parts, leg, () => names, connections);
  const newServer = (network?: NetworkView): { server: NetServer; listener: HttpListener } => {
    const made = leg.service().protocol === "grpc" ? createPlainGrpcServer(parts, grpc, refused) : newHttpServer();
    made.server.on("connection", (socket: Socket) => {
      connections.set(socket, attest(parts, socket, connections, network));
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
        if (!passesRecheck(who) || entitlementOf(parts, who) === undefined) socket.destroy();
      }
    },
    async close(graceMs) {
      await Promise.all([...listeners].map((listener) => listener.close(graceMs)));
    },
  };
}

/** Begins attestation at accept, once a connection. */
function attest(
  parts: RelayParts,
  socket: Socket,
  connections: Map<Duplex, Connected>,
  network: NetworkView | undefined,
): Connected {
  const endpoints = {
    client: { address: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 },
    server: { address: socket.localAddress ?? "", port: socket.localPort ?? 0 },
    ...acceptedDescriptor(socket),
  };
  const attested = parts.attestor.ofTcpConnection(endpoints, network);
  const connected: Connected = { attested, who: undefined };
  let closed = false;
  void attested.then((who) => {
    connected.who = who;
    if (closed) release(who);
  });
  socket.once("close", () => {
    closed = true;
    connections.delete(socket);
    if (connected.who !== undefined) release(connected.who);
  });
  return connected;
}

/** Node shows it in no other way; without it a connection is known by its two ends only. */
function acceptedDescriptor(socket: Socket): { accepted?: number } {
  const handle: unknown = Reflect.get(socket, "_handle");
  const fd: unknown = typeof handle === "object" && handle !== null ? Reflect.get(handle, "fd") : undefined;
  return typeof fd === "number" && fd >= 0 ? { accepted: fd } : {};
}

function release(who: Caller | Nobody): void {
  if (!("nobody" in who)) who.close();
}

/** The caller of a connection, checked again before each request (D5), and the first identity that follows (D9). */
function identified(parts: RelayParts, exchange: Call, who: Caller | Nobody): undefined {
  exchange.strangerDetail = describe(who);
  if ("nobody" in who) throw new Refusal("no-identity", 403, `no identity: ${who.reason}`);
  try {
    who.recheck();
  } catch (cause) {
    const reason = `${codeOf(cause)}: ${messageOf(cause)}`;
    throw new Refusal("process-changed", 403, `no identity: ${describe(who)} (${reason})`, { cause });
  }
  const entitlement = entitlementOf(parts, who);
  if (entitlement === undefined) {
    const hint = `"agentid attest ${who.facts.pid}" says why`;
    throw new Refusal("no-identity", 403, `no identity: ${describe(who)}; ${hint}`);
  }
  const { identity, evidence, launchedBy } = entitlement;
  exchange.caller = { id: identity.id, detail: describe(who), evidence, launchedBy, certificateSha256: undefined };
  return undefined;
}

function identify(
  parts: RelayParts,
  connections: ReadonlyMap<Duplex, Connected>,
  exchange: Call,
  socket: Duplex,
): undefined | Promise<undefined> {
  const connected = filled(connections.get(socket), "connection");
  if (connected.who !== undefined) return identified(parts, exchange, connected.who);
  return connected.attested.then((who) => identified(parts, exchange, who));
}

function identifyCaller(parts: RelayParts, connections: ReadonlyMap<Duplex, Connected>): Step {
  return (exchange) => identify(parts, connections, exchange, exchange.request.socket);
}

/** The steps of a call of gRPC, in the words of this leg. */
function outboundGrpcLeg(
  parts: RelayParts,
  leg: { service: () => RunningService; target: () => MutualTlsTarget; sessions: CallerSessions; tickets: Tickets },
  names: () => ListenerNames,
  connections: ReadonlyMap<Duplex, Connected>,
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
    const send = (host: string, added: readonly string[]): Promise<void> => {
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

function entitlementOf(parts: RelayParts, who: Caller | Nobody | undefined) {
  if (who === undefined || "nobody" in who) return undefined;
  return parts.registry.entitlementsOf(who).granted[0];
}

function passesRecheck(caller: Caller): boolean {
  try {
    caller.recheck();
    return true;
  } catch {
    return false;
  }
}

/** `python3 other.py, pid 5120, uid 1000`. */
function describe(who: Caller | Nobody): string {
  const words: string[] = [];
  if ("nobody" in who) {
    if (who.pid !== undefined) words.push(`pid ${who.pid}`);
    if (who.uid !== undefined) words.push(`uid ${who.uid}`);
    return words.join(", ");
  }
  const { commandLine, exePath, pid, uid } = who.facts;
  const command = commandLine.length > 0 ? commandLine.join(" ") : exePath;
  if (command !== undefined) words.push(command);
  return [...words, `pid ${pid}`, `uid ${uid}`].join(", ");
}
