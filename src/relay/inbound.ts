import type { ServerHttp2Session } from "node:http2";
import type { Duplex } from "node:stream";
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from "node:tls";
import { endWith } from "../http/connection-end.js";
import { endFailedHandshakes } from "../http/failed-handshakes.js";
import { inboundNames, type ListenerNames } from "../http/host-check.js";
import { type HttpListener, listenInsideOn, serveHttp } from "../http/http-listener.js";
import { listenOnLoopback } from "../http/listen.js";
import { type Peer, secureContextOptions, stillTrusted, type Unverified, verifyPeer } from "../http/mutual-tls.js";
import type { OutgoingAnswer } from "../http/outgoing-answer.js";
import { boundHandshakes, boundStrangers, MAX_HANDSHAKES, MAX_STRANGERS } from "../http/pending-handshakes.js";
import { Refusal, type RefusalCode } from "../http/refusal.js";
import { headerOf, type RawHeaders } from "../http/request-headers.js";
import { bundlesFor } from "../identity/federates-with.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import { userBehind } from "./calling-process.js";
import { clientCertificateHeaders } from "./client-certificate.js";
import { closeAfterExpiry } from "./connection-end.js";
import { decideAndRecord } from "./decide.js";
import { recordRefusedConnection } from "./decision-record.js";
import { durably, holdDurable } from "./durable.js";
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
import { refuseHttp1, serveGrpc } from "./grpc-servers.js";
import { TICKET_HEADER } from "./headers.js";
import { prepareHttp2Listener } from "./http2-listener.js";
import { nextHop } from "./next-hop.js";
import { runPipeline } from "./pipeline.js";
import { parseRequest, readMcpMessage } from "./request-steps.js";
import type { RunningService } from "./running-service.js";
import { replaceCertificate } from "./server-certificate.js";
import type { Tickets } from "./tickets.js";
import { traceCalls } from "./tracing.js";
import type { UpstreamConnection } from "./upstream.js";
import { openUpstreamWire } from "./upstream-wire.js";
import { asksForWebSocket } from "./websocket.js";

/** The mutual-TLS side of a service: takes the caller's SPIFFE ID from its certificate, asks the decision point, forwards or refuses. */
export interface InboundLeg {
  readonly host: "127.0.0.1";
  readonly port: number;
  /** Also takes connections on sockets that listen inside a sandbox; the descriptors pass to it. Returns the end of that. */
  listenInside(descriptors: readonly number[]): () => Promise<void>;
  close(graceMs: number): Promise<void>;
}

/** An admitted connection. */
interface Connected {
  readonly peer: Peer;
  /** How the service is told of it. */
  readonly headers: readonly string[];
  running: number;
  /** A process that our outbound leg keeps looking at: its connection lives while its identity is entitled, whatever its certificate says. */
  isLookedAfter: boolean;
  /** Ends it when what runs on it is over. */
  drain?: () => void;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** As long as an answer may take to begin. */
const STREAM_GRACE_MS = 300_000;
/** The longest delay a timer takes; a certificate that lives longer is looked at again then. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** Listens on a free port of 127.0.0.1 with the service's SVID. Throws CodedError `not-ready`, `identity-unknown`, `cannot-listen`. */
export async function openInboundLeg(
  relay: RelayParts,
  leg: { service: () => RunningService; upstream: () => UpstreamConnection; tickets: Tickets },
): Promise<InboundLeg> {
  const bundles = bundlesFor(relay.bundles, () => relay.registry.find(leg.service().id.toString()));
  const parts: RelayParts = { ...relay, bundles };
  const peers = new Map<Duplex, Connected>();
  let names: ListenerNames = inboundNames(0, "", "");
  const steps: readonly Step[] = [
    parseRequest(() => names),
    traceCalls(() => parts.tracer?.()),
    identifyCaller(parts, peers, leg.tickets),
    readMcpMessage(parts.clock),
    holdDurable(parts),
    decideAndRecord(parts),
    durably(parts, forwardToService(parts, peers, leg.upstream)),
  ];
  const { id, name } = leg.service();
  const refused = (socket: Duplex, code: RefusalCode, reason: string) => {
    const caller = peers.get(socket)?.peer.id.toString() ?? "(none)";
    recordRefusedConnection(parts, { leg: "inbound", service: leg.service(), caller, callerDetail: "", code, reason });
  };
  const listeners = new Set<HttpListener>();
  const servers = new Set<TlsServer>();
  let svid = parts.svids.x509Svid(id);
  const grpc = inboundGrpcLeg(parts, leg, () => names, peers);
  const newGrpcServer = () => {
    const sessions = new Set<ServerHttp2Session>();
    const server = createTlsServer({
      ...secureContextOptions(svid),
      requestCert: true,
      // Node verifies nothing: `admit` does, before a byte of a request is read.
      rejectUnauthorized: false,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      ALPNProtocols: ["h2"],
    });
    const listener = prepareHttp2Listener(server, sessions);
    server.on("secureConnection", (socket) => {
      socket.setNoDelay(true);
      if (socket.alpnProtocol !== "h2") return refuseHttp1(socket, refused);
      const session = serveGrpc(parts, grpc, socket, sessions);
      filled(peers.get(socket), "peer").drain = () => session.close();
    });
    return { server, listener };
  };
  const newHttpServer = () => {
    const server = createTlsServer({
      ...secureContextOptions(svid),
      requestCert: true,
      // Node verifies nothing: `admit` does, before a byte of a request is read.
      rejectUnauthorized: false,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      ALPNProtocols: ["http/1.1"],
    });
    const listener = serveHttp(server, {
      refused,
      maxConnections: parts.maxConnections,
      changesProtocol: (request) => asksForWebSocket(leg.service(), request),
      request(request, response, head) {
        holdOpenFor(peers.get(request.socket), request.socket, response, parts);
        void runPipeline(parts, steps, newExchange("inbound", leg.service(), request, response, head && { head }));
      },
    });
    return { server, listener };
  };
  const newServer = (): { server: TlsServer; listener: HttpListener } => {
    const { server, listener } = leg.service().protocol === "grpc" ? newGrpcServer() : newHttpServer();
    admitVerifiedOnly(server, { parts, peers, service: id }, (socket, { code, reason }) => {
      refused(socket, "certificate-refused", `${reason} (${code})`);
      endWith(socket, 401, "Unauthorized", "certificate-refused", reason);
    });
    endFailedHandshakes(server, (socket, reason) => refused(socket, "handshake-failed", reason));
    servers.add(server);
    for (const end of ["close", "error"]) server.once(end, () => servers.delete(server));
    return { server, listener };
  };

  const forgetRotation = parts.svids.onRotation(id, (next) => {
    if (replaceCertificate(parts, servers, name, next)) svid = next;
  });
  const dropDistrusted = () => {
    for (const [socket, { peer }] of peers) if (!stillTrusted(peer, parts.bundles, parts.clock)) socket.destroy();
  };
  const forgetBundles = parts.bundles.onBundleChange(dropDistrusted);
  // The end of an instance, and of an agent above a caller.
  const forgetRegistry = parts.registry.onChange(dropDistrusted);
  const { server, listener } = newServer();
  listeners.add(listener);
  const port = (await listenOnLoopback(server, "127.0.0.1", 0, name)) ?? 0;
  names = inboundNames(port, name, id.trustDomain.name);

  return {
    host: "127.0.0.1",
    port,
    listenInside: (descriptors) => listenInsideOn(descriptors, newServer, listeners),
    async close(graceMs) {
      forgetRotation();
      forgetBundles();
      forgetRegistry();
      await Promise.all([...listeners].map((one) => one.close(graceMs)));
    },
  };
}

/** Puts the verification of the peer between the handshake and the HTTP parser: an unverified peer's bytes never reach the parser. */
function admitVerifiedOnly(
  server: TlsServer,
  { parts, peers, service }: { parts: RelayParts; peers: Map<Duplex, Connected>; service: SpiffeId },
  refuse: (socket: TLSSocket, why: Unverified) => void,
): void {
  const toParser = server.listeners("secureConnection") as ((socket: TLSSocket) => void)[];
  server.removeAllListeners("secureConnection");
  const settled = boundHandshakes(server, (socket) => userBehind(parts.attestor, socket));
  const strangers = boundStrangers();
  // Beside the places of those who are served.
  server.maxConnections += MAX_HANDSHAKES + MAX_STRANGERS;
  server.on("secureConnection", (socket: TLSSocket) => {
    settled(socket);
    const peer = verifyPeer(socket, parts.bundles, parts.clock);
    if ("unverified" in peer) {
      socket.on("error", () => socket.destroy());
      if (strangers.admit(socket)) refuse(socket, peer);
      return;
    }
    const connected: Connected = {
      peer,
      headers: clientCertificateHeaders(peer, service),
      running: 0,
      isLookedAfter: false,
    };
    peers.set(socket, connected);
    const cancelExpiry = closeWhenExpired(parts, socket, connected);
    socket.once("close", () => {
      cancelExpiry();
      peers.delete(socket);
    });
    for (const listener of toParser) listener.call(server, socket);
  });
}

/**
 * Lets a connection drain once its certificate has run out: an idle one ends, running requests finish, later ones are refused (D24). What a caller from
 * elsewhere is still being told after `STREAM_GRACE_MS`, such as a stream of events, ends then.
 */
function closeWhenExpired(parts: RelayParts, socket: TLSSocket, connected: Connected): () => void {
  let cancel = (): void => undefined;
  const arm = () => {
    const left = connected.peer.notAfter.getTime() - parts.clock.now();
    if (left > 0) {
      cancel = parts.clock.after(Math.min(left, MAX_DELAY_MS), arm);
      return;
    }
    if (connected.drain !== undefined) connected.drain();
    else if (connected.running === 0) socket.end();
    cancel = parts.clock.after(STREAM_GRACE_MS, () => {
      if (!connected.isLookedAfter) socket.destroy();
    });
  };
  arm();
  return () => cancel();
}

function holdOpenFor(
  connected: Connected | undefined,
  socket: Duplex,
  response: OutgoingAnswer,
  parts: RelayParts,
): void {
  if (connected === undefined) return;
  const expired = () => connected.peer.notAfter.getTime() <= parts.clock.now();
  if (expired()) response.beLast();
  connected.running += 1;
  response.on("close", () => {
    connected.running -= 1;
    if (connected.running === 0 && expired()) socket.end();
  });
}

function identifyCaller(parts: RelayParts, peers: ReadonlyMap<Duplex, Connected>, tickets: Tickets): Step {
  return (exchange: Exchange): StepResult => {
    const connected = filled(peers.get(exchange.request.socket), "peer");
    return identified(parts, exchange, connected, tickets, exchange.request.rawHeaders);
  };
}

function identified(parts: RelayParts, call: Call, connected: Connected, tickets: Tickets, raw: RawHeaders): undefined {
  const { peer, headers: certificateHeaders } = connected;
  const { id, certificateSha256, launchedBy } = peer;
  const process = tickets.redeem(headerOf(raw, TICKET_HEADER), id.toString());
  if (process !== undefined) connected.isLookedAfter = true;
  const { detail = "", evidence = "certificate" } = process ?? {};
  const chain = ownChain(id, launchedBy, call);
  call.caller = { id, detail, evidence, launchedBy: chain, certificateSha256, certificateHeaders };
  if (peer.notAfter.getTime() <= parts.clock.now()) {
    throw new Refusal("certificate-expired", 401, "the certificate of this connection has expired: connect again");
  }
  return undefined;
}

/** The steps of a call of gRPC, in the words of this leg. */
function inboundGrpcLeg(
  parts: RelayParts,
  leg: { service: () => RunningService; upstream: () => UpstreamConnection; tickets: Tickets },
  names: () => ListenerNames,
  peers: ReadonlyMap<Duplex, Connected>,
): GrpcLeg {
  return {
    ...{ leg: "inbound", scheme: "https", names, service: leg.service, decides: () => true },
    identify(call) {
      const connected = filled(peers.get(call.socket), "peer");
      identified(parts, call, connected, leg.tickets, filled(call.head, "head").raw);
    },
    async sendOn(call, send) {
      const { sessions, host } = leg.upstream();
      const lease = () => sessions.lease();
      const { certificateHeaders: added = [] } = filled(call.caller, "caller");
      await send({ lease, scheme: "http", authority: host, added: [...added] });
    },
  };
}

/** Only our own authority says which of our agents launched somebody. */
function ownChain(id: SpiffeId, launchedBy: readonly string[], { service }: Call): readonly string[] {
  return id.memberOf(service.id.trustDomain) ? launchedBy : [];
}

function forwardToService(
  parts: RelayParts,
  peers: ReadonlyMap<Duplex, Connected>,
  upstream: () => UpstreamConnection,
): Step {
  return (exchange): Promise<StepResult> => {
    const { dispatcher, host } = upstream();
    const caller = filled(exchange.caller, "caller");
    const { certificateHeaders: added = [] } = caller;
    if (exchange.webSocket !== undefined) {
      const { socket } = exchange.request;
      // A process of ours is checked at the outbound leg for as long as its connection is open.
      if (caller.evidence === "certificate") {
        closeAfterExpiry(parts.clock, filled(peers.get(socket), "peer").peer.notAfter, socket);
      }
      const connect = () => openUpstreamWire(exchange.service);
      return forwardWebSocket(parts, exchange, { connect, host, added });
    }
    return forward(parts, exchange, nextHop(parts, exchange, { dispatcher, host, added }));
  };
}
