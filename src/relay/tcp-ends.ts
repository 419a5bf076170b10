import { connect as connectTcp, type Server, type Socket } from "node:net";
import { connect as connectTls, type SecureContext, type TLSSocket } from "node:tls";
import { CodedError, codeOf, messageOf } from "../coded-error.js";
import type { HttpListener } from "../http/http-listener.js";
import { type Peer, secureContextOf, verifyPeer } from "../http/mutual-tls.js";
import { Refusal } from "../http/refusal.js";
import type { X509BundleSource, X509Svid, X509SvidSource } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import type { End } from "./byte-relay.js";
import type { MutualTlsTarget } from "./caller-tls.js";
import type { RunningService } from "./running-service.js";

const CONNECT_TIMEOUT_MS = 10_000;

/** An accepted plain connection, or one to a service. */
export function plainEnd(socket: Socket): End {
  // Only TCP has a reset.
  const isTcp = socket.remoteAddress !== undefined;
  return { stream: socket, reset: () => (isTcp ? socket.resetAndDestroy() : socket.destroy()) };
}

/** A TLS connection over `raw`: without close_notify, by a reset, the peer sees that it was broken off. */
export function tlsEnd(stream: TLSSocket, raw: Socket | undefined): End {
  return {
    stream,
    reset() {
      if (raw?.remoteAddress !== undefined) raw.resetAndDestroy();
      stream.destroy();
    },
  };
}

/** Connects to the plain upstream of `service`. Rejects with Refusal `upstream-unreachable`, `upstream-timeout`, `upstream-failed`. */
export function connectToService({ name, upstream }: RunningService, clock: Clock): Promise<End> {
  if (upstream.kind === "mtls" || upstream.kind === "egress") {
    throw new Error("an mtls upstream is reached by the outbound leg, an egress target is no tcp service");
  }
  const { socket, connected } = connecting(name, clock, upstream);
  return connected.then(() => plainEnd(socket));
}

function connecting(
  name: string,
  clock: Clock,
  to: { readonly host: string; readonly port: number } | { readonly path: string },
): { readonly socket: Socket; readonly connected: Promise<void> } {
  const address = "path" in to ? { path: to.path } : { host: to.host, port: to.port };
  const socket = connectTcp({ ...address, allowHalfOpen: true, noDelay: true });
  const connected = new Promise<void>((resolve, reject) => {
    const fail = (cause: unknown) => {
      socket.destroy();
      reject(refusalFor(name, cause));
    };
    const cancel = clock.after(CONNECT_TIMEOUT_MS, () => fail(new CodedError("timeout", "nobody answered")));
    socket.once("error", fail);
    socket.once("connect", () => {
      cancel();
      socket.off("error", fail);
      // From here on whoever relays its bytes listens; until then an end is not an error of ours.
      socket.on("error", () => socket.destroy());
      resolve();
    });
    socket.once("close", cancel);
  });
  return { socket, connected };
}

/** A verified connection to where a service takes mutual TLS. */
export interface ServiceConnection extends End {
  readonly stream: TLSSocket;
  readonly peer: Peer;
}

/** One context for each SVID, not for each connection: making one parses the key. */
const contexts = new WeakMap<X509Svid, SecureContext>();

function contextOf(svid: X509Svid): SecureContext {
  const context = contexts.get(svid) ?? secureContextOf(svid);
  contexts.set(svid, context);
  return context;
}

/**
 * Connects to `target` with the SVID of `caller`, offering `alpn`. A server that speaks ALPN and does not know it ends the handshake. Rejects with
 * Refusal `not-ready`, `upstream-unreachable`, `upstream-timeout`, `upstream-failed`, also where somebody else answers than the target expects.
 */
export async function connectAsCaller(
  parts: { svids: X509SvidSource; bundles: X509BundleSource; clock: Clock },
  caller: { readonly id: SpiffeId; readonly launchedBy: readonly string[] },
  to: { readonly name: string; readonly target: MutualTlsTarget; readonly alpn: string },
): Promise<ServiceConnection> {
  const { name, target, alpn } = to;
  const secureContext = callersContext(parts.svids, caller);
  const { socket: raw, connected } = connecting(name, parts.clock, target);
  await connected;
  return new Promise((resolve, reject) => {
    // Node verifies nothing: verifyPeer below does, before a byte of the caller goes out.
    const stream = connectTls({ socket: raw, secureContext, ALPNProtocols: [alpn], rejectUnauthorized: false });
    const fail = (cause: unknown) => {
      cancel();
      stream.destroy();
      raw.destroy();
      reject(refusalFor(name, cause));
    };
    const cancel = parts.clock.after(CONNECT_TIMEOUT_MS, () =>
      fail(new CodedError("timeout", "the TLS handshake took too long")),
    );
    stream.once("error", fail);
    stream.once("close", fail);
    stream.once("secureConnect", () => {
      const peer = verifyPeer(stream, parts.bundles, parts.clock);
      if ("unverified" in peer) return fail(new CodedError("server-unverified", peer.reason));
      if (!peer.id.equals(target.expected)) {
        return fail(new CodedError("server-unexpected", `the server is ${peer.id}, not ${target.expected}`));
      }
      cancel();
      stream.off("error", fail);
      stream.off("close", fail);
      stream.on("error", () => stream.destroy());
      resolve({ ...tlsEnd(stream, raw), stream, peer });
    });
  });
}

function callersContext(
  svids: X509SvidSource,
  { id, launchedBy }: { readonly id: SpiffeId; readonly launchedBy: readonly string[] },
): SecureContext {
  try {
    return contextOf(svids.x509Svid(id, launchedBy));
  } catch (cause) {
    throw new Refusal("not-ready", 503, `no certificate for the caller now: ${messageOf(cause)}`, { cause });
  }
}

function refusalFor(service: string, cause: unknown): Refusal {
  const code = codeOf(cause);
  if (code === "timeout") {
    return new Refusal("upstream-timeout", 504, `${service} did not answer in time: ${messageOf(cause)}`, { cause });
  }
  if (code === "ECONNREFUSED" || code === "ENOENT") {
    return new Refusal("upstream-unreachable", 502, `${service} does not listen where it should (${code})`, { cause });
  }
  return new Refusal("upstream-failed", 502, `${service} broke off: ${messageOf(cause)}`, { cause });
}

/** Keeps what `server` accepts within `bound`, which a reload may move. Beyond it the kernel's connection is dropped, unseen. */
export function boundConnections(server: Server, bound: () => number): void {
  Object.defineProperty(server, "maxConnections", { get: bound });
}

/** Takes what `server` accepts, and ends it: it stops listening, lets connections finish for `graceMs`, then cuts them. */
export function tcpListener(server: Server): HttpListener {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  return {
    async close(graceMs) {
      const cut = () => {
        for (const socket of sockets) plainEnd(socket).reset();
      };
      if (!server.listening) return cut();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      const timer = setTimeout(cut, graceMs);
      await closed;
      clearTimeout(timer);
    },
  };
}
