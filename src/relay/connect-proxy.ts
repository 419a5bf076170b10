import { createServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { isDeepStrictEqual } from "node:util";
import type { Caller } from "../attestation/caller.js";
import { messageOf } from "../coded-error.js";
import { endWith } from "../http/connection-end.js";
import { type HttpListener, listenInsideOn, serveHttp } from "../http/http-listener.js";
import type { IncomingRequest } from "../http/incoming-request.js";
import { listenOnLoopback } from "../http/listen.js";
import type { OutgoingAnswer } from "../http/outgoing-answer.js";
import { Refusal, type RefusalCode } from "../http/refusal.js";
import type { NetworkView } from "../platform/platform.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import { answerProblem, titleOf } from "./answer.js";
import type { End } from "./byte-relay.js";
import {
  type AttestedConnection,
  attestConnection,
  describeProcess,
  entitlementOf,
  identityOf,
  userOf,
} from "./calling-process.js";
import { authorityOf, targetAt } from "./connect-target.js";
import { recordRefusedConnection } from "./decision-record.js";
import { connectTunnel } from "./egress-connection.js";
import type { RelayParts } from "./exchange.js";
import { DECISION_HEADER } from "./headers.js";
import { OpenConnection } from "./open-connection.js";
import type { OutboundLeg } from "./outbound.js";
import type { RunningService } from "./running-service.js";
import { plainEnd } from "./tcp-ends.js";
import { decideConnection, newTcpExchange, recordEnd, recordRefusal, type TcpExchange } from "./tcp-exchange.js";
import { breakOffIfDenied, isStill, type TcpLeg } from "./tcp-outbound.js";
import { traceConnection } from "./tcp-tracing.js";
import { parentIn } from "./tracing.js";

/** What the listener is called where a message names it. */
const PROXY = "proxy";

interface Tunnel {
  readonly connection: OpenConnection;
  readonly caller: Caller | undefined;
}

interface Proxy {
  /** What the record names where no target was. */
  readonly itself: RunningService;
  readonly services: () => readonly RunningService[];
  readonly tunnels: Set<Tunnel>;
}

/**
 * The one listener that takes CONNECT, for programs that know proxies: to the targets of egress that say so, and nowhere else. The caller is named by the
 * kernel, the connection decided once by its host; the caller's TLS goes through unopened. `any` is one of the targets. Listens on `port` of 127.0.0.1 and ::1. Throws CodedError
 * `port-in-use`, `cannot-listen`.
 */
export async function openConnectProxy(
  parts: RelayParts,
  { port: wanted, any, services }: { port: number; any: RunningService; services: () => readonly RunningService[] },
): Promise<OutboundLeg & TcpLeg> {
  const itself = { ...any, name: PROXY, id: SpiffeId.of(any.id.trustDomain, PROXY), protocol: "tcp" as const };
  const proxy: Proxy = { itself, services, tunnels: new Set() };
  const listeners = new Set<HttpListener>();
  const newServer = (network?: NetworkView) => {
    const connections = new Map<Duplex, AttestedConnection>();
    const server = createServer();
    const refused = (socket: Duplex, code: RefusalCode, reason: string): void => {
      recordUnread(parts, proxy, connections.get(socket), code, reason);
    };
    const listener = serveHttp(server, {
      refused,
      maxConnections: parts.maxConnections,
      changesProtocol: ({ method }) => method === "CONNECT",
      request(request, response, head) {
        const calling = connections.get(request.socket);
        if (head === undefined) void refuseRequest(parts, proxy, request, response, calling);
        else if (calling === undefined) request.socket.destroy();
        else void carry(parts, proxy, { request, socket: response.handOver(), head, calling });
      },
    });
    server.on("connection", (socket: Socket) => {
      // What the listener has refused already asks nothing.
      if (socket.writableEnded) return;
      connections.set(socket, attestConnection(parts.attestor, socket, network));
      socket.once("close", () => connections.delete(socket));
    });
    return { server, listener };
  };
  const listen = async (host: "127.0.0.1" | "::1", port: number) => {
    const { server, listener } = newServer();
    const bound = await listenOnLoopback(server, host, port, PROXY);
    if (bound !== undefined) listeners.add(listener);
    return bound;
  };
  const close = async (graceMs: number): Promise<void> => {
    // Before the listeners cut what is left: a tunnel that is cut must not look complete.
    const cut = setTimeout(() => {
      for (const { connection } of proxy.tunnels) connection.breakOff("relay-closed");
    }, graceMs);
    await Promise.all([...listeners].map((listener) => listener.close(graceMs)));
    clearTimeout(cut);
  };

  let port: number;
  try {
    port = (await listen("127.0.0.1", wanted)) ?? wanted;
    await listen("::1", port);
  } catch (error) {
    await close(0);
    throw error;
  }

  return {
    port,
    listenInside: (network, descriptors) => listenInsideOn(descriptors, () => newServer(network), listeners),
    recheckCallers() {
      for (const { connection, caller } of proxy.tunnels) {
        if (caller !== undefined && !isStill(parts, connection, caller)) connection.breakOff("identity-lost");
      }
    },
    recheckDecisions() {
      for (const { connection } of proxy.tunnels) {
        const { service: was } = connection.exchange;
        const is = services().find(({ name }) => name === was.name);
        if (isDeepStrictEqual(is?.upstream, was.upstream)) breakOffIfDenied(parts, connection);
        else connection.breakOff("target-changed");
      }
    },
    close,
  };
}

/** One CONNECT, from its request to the end of its bytes. What the caller sends before the answer is held. */
async function carry(
  parts: RelayParts,
  proxy: Proxy,
  arrived: { request: IncomingRequest; socket: Socket; head: Buffer; calling: AttestedConnection },
): Promise<void> {
  const { request, socket, head, calling } = arrived;
  let exchange: TcpExchange = {
    ...newTcpExchange("outbound", proxy.itself, parts),
    ...{ request: { method: "CONNECT" }, parent: parentIn(request.rawHeaders) },
  };
  traceConnection(exchange);
  let tunnel: Tunnel | undefined;
  let service: End | undefined;
  try {
    const who = await calling.attested;
    exchange.strangerDetail = describeProcess(who);
    exchange.strangerUser = userOf(who);
    const authority = authorityOf(request);
    const { identity, evidence, launchedBy } = identityOf(parts.registry, who);
    const detail = describeProcess(who);
    exchange.caller = { id: identity.id, detail, evidence, launchedBy, certificateSha256: undefined };
    const { service: named, target } = targetAt(authority, proxy.services());
    exchange = { ...exchange, service: named };
    const connection = new OpenConnection(exchange, plainEnd(socket), parts.clock);
    tunnel = { connection, caller: "nobody" in who ? undefined : who };
    proxy.tunnels.add(tunnel);
    const decision = await decideConnection(parts, exchange, () => connection.isOver);
    connection.requireOpen();
    service = plainEnd(await connectTunnel(target, parts.resolve));
    connection.requireOpen();
    socket.write(`HTTP/1.1 200 Connection Established\r\n${DECISION_HEADER}: ${decision.id}\r\n\r\n`);
    if (head.length > 0) socket.unshift(head);
    recordEnd(parts, exchange, await connection.relayTo(service, named.connections?.idleSeconds));
  } catch (thrown) {
    service?.reset();
    recordRefusal(parts, exchange, thrown);
    answer(socket, exchange, asRefusal(thrown));
  } finally {
    if (tunnel !== undefined) proxy.tunnels.delete(tunnel);
  }
}

function answer(socket: Socket, { decision }: TcpExchange, refusal: Refusal): void {
  if (socket.destroyed) return;
  const { status, code, message } = refusal;
  endWith(socket, status, titleOf(refusal), code, message, { rule: decision?.rule, decision: decision?.id });
}

/** Whatever is no CONNECT: a program that sends plain http to its proxy, or one that takes this for a service. */
async function refuseRequest(
  parts: RelayParts,
  proxy: Proxy,
  { url, socket }: IncomingRequest,
  response: OutgoingAnswer,
  calling: AttestedConnection | undefined,
): Promise<void> {
  await calling?.attested;
  const isAbsolute = /^[a-z][a-z0-9+.-]*:/i.test(url);
  const refusal = isAbsolute
    ? new Refusal(
        "connect-only",
        403,
        "plain http is not carried: call what AGENTID_URL_NAME says, or https by CONNECT",
      )
    : new Refusal("connect-only", 421, "this is the proxy, which takes CONNECT: services are at AGENTID_URL_NAME");
  recordUnread(parts, proxy, calling, refusal.code, refusal.message);
  if (socket.destroyed) return;
  response.beLast();
  const { status, code, message: detail } = refusal;
  answerProblem(response, { status, title: titleOf(refusal), code, detail });
}

/** Puts on record what was refused before it could name a target. */
function recordUnread(
  parts: RelayParts,
  proxy: Proxy,
  calling: AttestedConnection | undefined,
  code: RefusalCode,
  reason: string,
): void {
  const who = calling?.who;
  const callerDetail = who === undefined ? "" : describeProcess(who);
  const caller = entitlementOf(parts.registry, who)?.identity.name ?? "(none)";
  const user = who && userOf(who);
  recordRefusedConnection(parts, { leg: "outbound", service: proxy.itself, caller, callerDetail, code, reason, user });
}

function asRefusal(thrown: unknown): Refusal {
  if (thrown instanceof Refusal) return thrown;
  return new Refusal("decision-failed", 503, `refused after an error: ${messageOf(thrown)}`, { cause: thrown });
}
