import type { Socket } from "node:net";
import { createServer, type Server, type TLSSocket } from "node:tls";
import { endFailedHandshakes } from "../http/failed-handshakes.js";
import { type HttpListener, listenInsideOn } from "../http/http-listener.js";
import { listenOnLoopback } from "../http/listen.js";
import { type Peer, secureContextOptions, stillTrusted, verifyPeer } from "../http/mutual-tls.js";
import { boundHandshakes } from "../http/pending-handshakes.js";
import { Refusal, type RefusalCode } from "../http/refusal.js";
import { bundlesFor } from "../identity/federates-with.js";
import type { End } from "./byte-relay.js";
import { userBehind } from "./calling-process.js";
import { recordRefusedConnection } from "./decision-record.js";
import type { RelayParts } from "./exchange.js";
import type { InboundLeg } from "./inbound.js";
import { OpenConnection } from "./open-connection.js";
import type { RunningService } from "./running-service.js";
import { replaceCertificate } from "./server-certificate.js";
import { boundConnections, connectToService, tcpListener, tlsEnd } from "./tcp-ends.js";
import { decideConnection, endGently, newTcpExchange, recordEnd, recordRefusal } from "./tcp-exchange.js";
import { breakOffIfDenied, maxOf, type TcpLeg } from "./tcp-outbound.js";
import { ALPN, readPreface } from "./tcp-protocol.js";
import { traceConnection } from "./tcp-tracing.js";
import type { CallingProcess, Tickets } from "./tickets.js";

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Connections that have not come out of their handshake. */
const MAX_HANDSHAKES = 256;
/** Lingering after a refusal, beside those that are counted. */
const MAX_BESIDE = 512;
/** TLS 1.3 cannot authenticate again in place: a peer that is known by its certificate alone is given this long after its end (D24). */
const AFTER_EXPIRY_MS = 30_000;

/** A connection that was admitted, and who is at its other end. */
interface Admitted {
  readonly connection: OpenConnection;
  readonly peer: Peer;
}

interface Leg {
  readonly service: () => RunningService;
  readonly tickets: Tickets;
}

/**
 * The mutual-TLS side of a tcp service: takes the caller's SPIFFE ID from its certificate, asks the decision point once, and carries bytes or refuses.
 * Listens on a free port of 127.0.0.1 with the service's SVID. Throws CodedError `not-ready`, `identity-unknown`, `cannot-listen`.
 */
export async function openTcpInboundLeg(relay: RelayParts, leg: Leg): Promise<InboundLeg & TcpLeg> {
  const bundles = bundlesFor(relay.bundles, () => relay.registry.find(leg.service().id.toString()));
  const parts: RelayParts = { ...relay, bundles };
  const open = new Set<Admitted>();
  const listeners = new Set<HttpListener>();
  const servers = new Set<Server>();
  const { id, name } = leg.service();
  let svid = parts.svids.x509Svid(id);
  const newServer = () => {
    const server = createServer({
      ...secureContextOptions(svid),
      allowHalfOpen: true,
      noDelay: true,
      requestCert: true,
      // Node verifies nothing: `admit` does, before a byte is read.
      rejectUnauthorized: false,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      ALPNProtocols: [ALPN.ticketed, ALPN.plain],
    });
    boundConnections(server, () => maxOf(leg.service()) + MAX_HANDSHAKES + MAX_BESIDE);
    const listener = tcpListener(server);
    const rawOf = boundHandshakes(server, (socket) => userBehind(parts.attestor, socket), MAX_HANDSHAKES);
    endFailedHandshakes(server, (_socket, reason) => {
      const nobody = { caller: "(none)", callerDetail: "" };
      recordRefusedConnection(parts, {
        ...{ leg: "inbound", service: leg.service(), ...nobody },
        ...{ code: "handshake-failed", reason },
      });
    });
    server.on("secureConnection", (socket) => {
      void carry(parts, leg, open, socket, rawOf(socket));
    });
    servers.add(server);
    for (const end of ["close", "error"]) server.once(end, () => servers.delete(server));
    return { server, listener };
  };

  const forgetRotation = parts.svids.onRotation(id, (next) => {
    if (!replaceCertificate(parts, servers, name, next)) return;
    svid = next;
  });
  const dropDistrusted = () => {
    for (const { connection, peer } of open) {
      const gone = peer.id.memberOf(id.trustDomain) && parts.registry.find(peer.id.toString()) === undefined;
      if (gone || !stillTrusted(peer, parts.bundles, parts.clock)) connection.breakOff("identity-lost");
    }
  };
  const forgetBundles = parts.bundles.onBundleChange(dropDistrusted);
  // The end of an instance, of an identity, and of an agent above a caller.
  const forgetRegistry = parts.registry.onChange(dropDistrusted);
  const { server, listener } = newServer();
  listeners.add(listener);
  const port = (await listenOnLoopback(server, "127.0.0.1", 0, name)) ?? 0;

  return {
    host: "127.0.0.1",
    port,
    listenInside: (descriptors) => listenInsideOn(descriptors, newServer, listeners),
    recheckDecisions() {
      for (const { connection } of open) breakOffIfDenied(parts, connection);
    },
    async close(graceMs) {
      forgetRotation();
      forgetBundles();
      forgetRegistry();
      await Promise.all([...listeners].map((one) => one.close(graceMs)));
    },
  };
}

/** One connection from the end of its handshake to its own end. */
async function carry(
  parts: RelayParts,
  leg: Leg,
  open: Set<Admitted>,
  socket: TLSSocket,
  raw: Socket | undefined,
): Promise<void> {
  const service = leg.service();
  // Until its bytes are relayed nobody else listens.
  socket.on("error", () => socket.destroy());
  const peer = admit(parts, open, service, socket);
  if (peer === undefined) {
    endGently(socket);
    return;
  }
  const exchange = newTcpExchange("inbound", service, parts);
  const connection = new OpenConnection(exchange, tlsEnd(socket, raw), parts.clock);
  const admitted: Admitted = { connection, peer };
  open.add(admitted);
  let upstream: End | undefined;
  try {
    const process = await ticketOf(parts, leg.tickets, socket, peer);
    const { detail = "", evidence = "certificate" } = process ?? {};
    exchange.parent = process?.trace;
    traceConnection(exchange);
    const { id, certificateSha256 } = peer;
    // Only our own authority says which of our agents launched somebody.
    const launchedBy = id.memberOf(service.id.trustDomain) ? peer.launchedBy : [];
    exchange.caller = { id, detail, evidence, launchedBy, certificateSha256 };
    await decideConnection(parts, exchange, () => connection.isOver);
    upstream = await connectToService(service, parts.clock);
    connection.requireOpen();
    const relayed = connection.relayTo(upstream, service.connections?.idleSeconds);
    // Who came through our own outbound leg is checked there at each rotation.
    if (process === undefined) {
      connection.breakOffAt(peer.notAfter.getTime() + AFTER_EXPIRY_MS, "certificate-expired");
    }
    recordEnd(parts, exchange, await relayed);
  } catch (thrown) {
    upstream?.reset();
    recordRefusal(parts, exchange, thrown);
    endGently(socket);
  } finally {
    open.delete(admitted);
  }
}

/** Who is at the other end, if it may come in at all. What is refused here is on record. */
function admit(
  parts: RelayParts,
  open: ReadonlySet<Admitted>,
  service: RunningService,
  socket: TLSSocket,
): Peer | undefined {
  const peer = verifyPeer(socket, parts.bundles, parts.clock);
  const refuse = (code: RefusalCode, reason: string) => {
    const caller = "unverified" in peer ? "(none)" : peer.id.toString();
    recordRefusedConnection(parts, { leg: "inbound", service, caller, callerDetail: "", code, reason });
    return undefined;
  };
  if ("unverified" in peer) return refuse("certificate-refused", `${peer.reason} (${peer.code})`);
  // Who names no protocol at all gets through the handshake: it may be one for HTTP.
  if (socket.alpnProtocol !== ALPN.plain && socket.alpnProtocol !== ALPN.ticketed) {
    return refuse("protocol-unknown", `the connection names no protocol: ALPN ${ALPN.plain} is needed`);
  }
  if (open.size >= maxOf(service)) {
    return refuse("connections-exhausted", `${service.name} has ${open.size} connections open, and takes no more`);
  }
  return peer;
}

/** What our outbound leg knows of the calling process; undefined for who comes by certificate alone. Rejects with Refusal. */
async function ticketOf(
  parts: RelayParts,
  tickets: Tickets,
  socket: TLSSocket,
  peer: Peer,
): Promise<CallingProcess | undefined> {
  if (socket.alpnProtocol !== ALPN.ticketed) return undefined;
  const process = tickets.redeem(await readPreface(socket, parts.clock), peer.id.toString());
  if (process === undefined)
    throw new Refusal("ticket-refused", 403, "the ticket was never issued to this caller, or is used up");
  return process;
}
