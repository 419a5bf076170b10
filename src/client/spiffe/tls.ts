import { constants } from "node:crypto";
import { createServer, type Server } from "node:net";
import {
  connect,
  createSecureContext,
  createServer as createTlsListener,
  type SecureContext,
  TLSSocket,
} from "node:tls";
import type { Clock } from "../../platform/clock.js";
import { systemClock } from "../../platform/clock.js";
import { encodePem } from "../../spiffe/pem.js";
import type { Authorizer } from "./authorize.js";
import { isStillTrusted, type Peer, PeerError, verifyPeer } from "./peer.js";
import type { X509Svid } from "./x509-context.js";
import type { TlsIdentity } from "./x509-source.js";

const HANDSHAKE_TIMEOUT_MS = 10_000;

export interface ConnectTlsOptions {
  readonly host: string;
  readonly port: number;
  /** Who alone may answer. */
  readonly authorize: Authorizer;
  readonly alpnProtocols?: readonly string[] | undefined;
  /** For connecting and the handshake together. Default 10,000. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly clock?: Clock | undefined;
}

/**
 * Connects with mutual TLS 1.3 and resolves once the server is verified and authorized: nobody holds the socket before that, so no byte
 * can be sent to, or taken from, somebody else. `peerOf(socket)` says who it is. The connection is closed when the server's authority loses trust.
 * Rejects with PeerError, with WorkloadApiError for no usable SVID of our own, `ETIMEDOUT`, or the connection's own error.
 */
export function connectTls(identity: TlsIdentity, options: ConnectTlsOptions): Promise<TLSSocket> {
  const { authorize, clock = systemClock, signal } = options;
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const socket = connect({
      host: options.host,
      port: options.port,
      secureContext: secureContextOf(identity.svid()),
      ...(options.alpnProtocols === undefined ? {} : { ALPNProtocols: [...options.alpnProtocols] }),
      // Node verifies nothing: verifyPeer does, against one trust domain's bundle. A host name says nothing of a workload.
      rejectUnauthorized: false,
    });
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      socket.off("error", fail);
      socket.off("close", lost);
    };
    const fail = (error: unknown) => {
      done();
      socket.on("error", () => {}); // what follows from its end
      socket.destroy();
      reject(error);
    };
    const abort = () => fail(signal?.reason);
    const lost = () => fail(Object.assign(new Error("the connection closed in its handshake"), { code: "ECONNRESET" }));
    const timer = setTimeout(
      () => fail(Object.assign(new Error("the TLS handshake took too long"), { code: "ETIMEDOUT" })),
      options.timeoutMs ?? HANDSHAKE_TIMEOUT_MS,
    );
    signal?.addEventListener("abort", abort, { once: true });
    socket.once("error", fail);
    socket.once("close", lost);
    socket.once("secureConnect", () => {
      try {
        admit(socket, verifyPeer(socket, identity, authorize, new Date(clock.now())), identity, clock);
      } catch (thrown) {
        return fail(thrown);
      }
      done();
      resolve(socket);
    });
  });
}

export interface TlsServerOptions {
  /** Who alone may connect. */
  readonly authorize: Authorizer;
  readonly alpnProtocols?: readonly string[] | undefined;
  /** Default 10,000. */
  readonly handshakeTimeoutMs?: number | undefined;
  /** Called with each connection that was refused and why: a PeerError or TLS's own error. */
  readonly onRefused?: ((reason: Error) => void) | undefined;
  readonly clock?: Clock | undefined;
}

/**
 * A server of mutual TLS 1.3 whose `listener` sees verified and authorized peers only. The answer is the plain `net.Server` below it
 * (listen, address, close): nothing on it hands out a connection that was not verified. New SVIDs serve new connections; those that run go on,
 * until their peer's authority loses trust.
 */
export function createTlsServer(
  identity: TlsIdentity,
  options: TlsServerOptions,
  listener: (socket: TLSSocket, peer: Peer) => void,
): Server {
  const { authorize, onRefused, clock = systemClock } = options;
  const tls = createTlsListener({
    ...secureOptions(identity.svid()),
    ...(options.alpnProtocols === undefined ? {} : { ALPNProtocols: [...options.alpnProtocols] }),
    handshakeTimeout: options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS,
    requestCert: true,
    rejectUnauthorized: false,
  });
  tls.on("tlsClientError", (error, socket) => {
    // Node leaves a connection open whose handshake took too long.
    socket.destroy();
    onRefused?.(error);
  });
  tls.on("secureConnection", (socket) => {
    socket.on("error", () => {}); // the listener adds its own; without one a reset peer must not end the process
    let peer: Peer;
    try {
      identity.svid(); // an SVID that was withdrawn serves nobody
      peer = verifyPeer(socket, identity, authorize, new Date(clock.now()));
      admit(socket, peer, identity, clock);
    } catch (thrown) {
      socket.destroy();
      if (thrown instanceof Error) onRefused?.(thrown);
      return;
    }
    listener(socket, peer);
  });
  const forget = identity.onUpdate(() => {
    const context = presentable(identity);
    if (context !== undefined) tls.setSecureContext(context);
  });
  const server = createServer((socket) => tls.emit("connection", socket));
  server.once("close", forget);
  return server;
}

/** Who is at the other end of `socket`; undefined for a socket that these functions did not make or that is not verified. */
export function peerOf(socket: object): Peer | undefined {
  return socket instanceof TLSSocket ? admitted.get(socket) : undefined;
}

const admitted = new WeakMap<TLSSocket, Peer>();

/** From now on `socket` is `peer`'s, for as long as its authorities are trusted. */
function admit(socket: TLSSocket, peer: Peer, identity: TlsIdentity, clock: Clock): void {
  admitted.set(socket, peer);
  const { trustDomain } = peer.id;
  let judgedBy = identity.bundleFor(trustDomain);
  const forget = identity.onUpdate(() => {
    const roots = identity.bundleFor(trustDomain);
    // Most updates are rotations of our own SVID, and a server may hold thousands of connections.
    if (sameRoots(judgedBy, roots)) return;
    judgedBy = roots;
    if (isStillTrusted(peer, identity, new Date(clock.now()))) return;
    socket.destroy(new PeerError("peer-unverified", `the authority of ${peer.id} is not trusted any more`));
  });
  socket.once("close", forget);
}

function sameRoots(some: readonly Buffer[] = [], others: readonly Buffer[] = []): boolean {
  return some.length === others.length && some.every((root, index) => root.equals(others[index] ?? Buffer.alloc(0)));
}

/** Ours to present, or undefined while there is none: the old one goes on until there is. */
function presentable(identity: TlsIdentity): ReturnType<typeof secureOptions> | undefined {
  try {
    return secureOptions(identity.svid());
  } catch {
    return undefined;
  }
}

const contexts = new WeakMap<X509Svid, SecureContext>();

function secureContextOf(svid: X509Svid): SecureContext {
  const known = contexts.get(svid) ?? createSecureContext(secureOptions(svid));
  contexts.set(svid, known);
  return known;
}

/** TLS 1.3 only, and no session is ever resumed: no ticket is given out, none is kept. */
function secureOptions(svid: X509Svid) {
  return {
    cert: svid.certificates.map((der) => encodePem("CERTIFICATE", der)).join(""),
    key: svid.privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    // Empty on purpose: Node verifies nothing, verifyPeer does.
    ca: [] as string[],
    minVersion: "TLSv1.3",
    secureOptions: constants.SSL_OP_NO_TICKET,
  } as const;
}
