import type { ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { inboundNames, type ListenerNames } from "../http/host-check.js";
import {
  endWith,
  type HttpListener,
  httpListenerOptions,
  listenInsideOn,
  prepareHttpListener,
} from "../http/http-listener.js";
import { listenOnLoopback } from "../http/listen.js";
import { type Peer, secureContextOptions, stillTrusted, type Unverified, verifyPeer } from "../http/mutual-tls.js";
import { Refusal, type RefusalCode } from "../http/refusal.js";
import { headerOf } from "../http/request-headers.js";
import { bundlesFor } from "../identity/federates-with.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import { clientCertificateHeaders } from "./client-certificate.js";
import { decideAndRecord } from "./decide.js";
import { recordRefusedConnection } from "./decision-record.js";
import { durably, holdDurable } from "./durable.js";
import { type Exchange, filled, newExchange, type RelayParts, type Step, type StepResult } from "./exchange.js";
import { forward } from "./forward.js";
import { TICKET_HEADER } from "./headers.js";
import { nextHop } from "./next-hop.js";
import { runPipeline } from "./pipeline.js";
import { parseRequest, readMcpMessage } from "./request-steps.js";
import type { RunningService } from "./running-service.js";
import type { Tickets } from "./tickets.js";
import { traceCalls } from "./tracing.js";
import type { UpstreamConnection } from "./upstream.js";

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
}

const HANDSHAKE_TIMEOUT_MS = 10_000;
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
    durably(parts, forwardToService(parts, leg.upstream)),
  ];
  const { id, name } = leg.service();
  const refused = (socket: Duplex, code: RefusalCode, reason: string) => {
    const caller = peers.get(socket)?.peer.id.toString() ?? "(none)";
    recordRefusedConnection(parts, { leg: "inbound", service: leg.service(), caller, callerDetail: "", code, reason });
  };
  const listeners = new Set<HttpListener>();
  const servers = new Set<Server>();
  const newServer = () => {
    const server = createServer(
      {
        ...httpListenerOptions,
        ...secureContextOptions(parts.svids.x509Svid(id)),
        requestCert: true,
        // Node verifies nothing: `admit` does, before a byte of a request is read.
        rejectUnauthorized: false,
        handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
        ALPNProtocols: ["http/1.1"],
      },
      (request, response) => {
        holdOpenFor(peers.get(request.socket), request.socket, response, parts);
        void runPipeline(parts, steps, newExchange("inbound", leg.service(), request, response));
      },
    );
    const listener = prepareHttpListener(server, refused, parts.maxConnections);
    admitVerifiedOnly(server, { parts, peers, service: id }, (socket, { code, reason }) => {
      refused(socket, "certificate-refused", `${reason} (${code})`);
      endWith(socket, 401, "Unauthorized", "certificate-refused", reason);
    });
    servers.add(server);
    for (const end of ["close", "error"]) server.once(end, () => servers.delete(server));
    return { server, listener };
  };

  const forgetRotation = parts.svids.onRotation(id, (svid) => {
    for (const server of servers) server.setSecureContext(secureContextOptions(svid));
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
  server: ReturnType<typeof createServer>,
  { parts, peers, service }: { parts: RelayParts; peers: Map<Duplex, Connected>; service: SpiffeId },
  refuse: (socket: TLSSocket, why: Unverified) => void,
): void {
  const toParser = server.listeners("secureConnection") as ((socket: TLSSocket) => void)[];
  server.removeAllListeners("secureConnection");
  server.on("secureConnection", (socket: TLSSocket) => {
    const peer = verifyPeer(socket, parts.bundles, parts.clock);
    if ("unverified" in peer) {
      socket.on("error", () => socket.destroy());
      refuse(socket, peer);
      return;
    }
    const connected: Connected = { peer, headers: clientCertificateHeaders(peer, service), running: 0 };
    peers.set(socket, connected);
    const cancelExpiry = closeWhenExpired(parts, socket, connected);
    socket.once("close", () => {
      cancelExpiry();
      peers.delete(socket);
    });
    for (const listener of toParser) listener.call(server, socket);
  });
}

/** Lets a connection drain once its certificate has run out: an idle one ends, running requests finish, later ones are refused (D24). */
function closeWhenExpired(parts: RelayParts, socket: TLSSocket, connected: Connected): () => void {
  let cancel = (): void => undefined;
  const arm = () => {
    const left = connected.peer.notAfter.getTime() - parts.clock.now();
    if (left > 0) cancel = parts.clock.after(Math.min(left, MAX_DELAY_MS), arm);
    else if (connected.running === 0) socket.end();
  };
  arm();
  return () => cancel();
}

function holdOpenFor(
  connected: Connected | undefined,
  socket: Duplex,
  response: ServerResponse,
  parts: RelayParts,
): void {
  if (connected === undefined) return;
  const expired = () => connected.peer.notAfter.getTime() <= parts.clock.now();
  if (expired()) response.setHeader("Connection", "close");
  connected.running += 1;
  response.on("close", () => {
    connected.running -= 1;
    if (connected.running === 0 && expired()) socket.end();
  });
}

function identifyCaller(parts: RelayParts, peers: ReadonlyMap<Duplex, Connected>, tickets: Tickets): Step {
  return (exchange: Exchange): StepResult => {
    const { peer, headers: certificateHeaders } = filled(peers.get(exchange.request.socket), "peer");
    const { id, certificateSha256, launchedBy } = peer;
    const process = tickets.redeem(headerOf(exchange.request.rawHeaders, TICKET_HEADER), id.toString());
    const { detail = "", evidence = "certificate" } = process ?? {};
    const chain = ownChain(id, launchedBy, exchange);
    exchange.caller = { id, detail, evidence, launchedBy: chain, certificateSha256, certificateHeaders };
    if (peer.notAfter.getTime() <= parts.clock.now()) {
      throw new Refusal("certificate-expired", 401, "the certificate of this connection has expired: connect again");
    }
    return undefined;
  };
}

/** Only our own authority says which of our agents launched somebody. */
function ownChain(id: SpiffeId, launchedBy: readonly string[], { service }: Exchange): readonly string[] {
  return id.memberOf(service.id.trustDomain) ? launchedBy : [];
}

function forwardToService(parts: RelayParts, upstream: () => UpstreamConnection): Step {
  return (exchange): Promise<StepResult> => {
    const { dispatcher, host } = upstream();
    const { certificateHeaders: added = [] } = filled(exchange.caller, "caller");
    return forward(parts, exchange, nextHop(parts, exchange, { dispatcher, host, added }));
  };
}
