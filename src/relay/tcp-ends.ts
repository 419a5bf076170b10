import type { Server, Socket } from "node:net";
import type { SecureContext, TLSSocket } from "node:tls";
import { messageOf } from "../coded-error.js";
import type { HttpListener } from "../http/http-listener.js";
import type { Peer } from "../http/mutual-tls.js";
import { Refusal } from "../http/refusal.js";
import type { X509BundleSource, X509SvidSource } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import type { End } from "./byte-relay.js";
import { callerContext, connectMutualTls, type MutualTlsTarget } from "./caller-tls.js";
import { asRefusal } from "./forward.js";
import type { RunningService } from "./running-service.js";
import { openUpstreamWire, openWire } from "./upstream-wire.js";

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
export async function connectToService(service: RunningService, clock: Clock): Promise<End> {
  try {
    return plainEnd(await openUpstreamWire(service, { clock, allowHalfOpen: true }));
  } catch (thrown) {
    throw asRefusal(thrown, service.name);
  }
}

/** A verified connection to where a service takes mutual TLS. */
export interface ServiceConnection extends End {
  readonly stream: TLSSocket;
  readonly peer: Peer;
}

/**
 * Connects to `target` with the SVID of `caller`, offering `alpn`. Rejects with Refusal `not-ready`, `upstream-unreachable`, `upstream-timeout`,
 * `upstream-failed`, also where somebody else answers than the target expects.
 */
export async function connectAsCaller(
  parts: { svids: X509SvidSource; bundles: X509BundleSource; clock: Clock },
  caller: { readonly id: SpiffeId; readonly launchedBy: readonly string[] },
  to: { readonly name: string; readonly target: MutualTlsTarget; readonly alpn: string },
): Promise<ServiceConnection> {
  const { name, target, alpn } = to;
  const secureContext = contextOf(parts.svids, caller);
  try {
    const over = await openWire(target, parts.clock, true);
    return await new Promise((resolve, reject) => {
      const connected = (stream: TLSSocket, peer: Peer) => {
        stream.on("error", () => stream.destroy());
        resolve({ ...tlsEnd(stream, over), stream, peer });
      };
      connectMutualTls(parts, target, { secureContext, alpn, over }, connected, reject);
    });
  } catch (thrown) {
    throw asRefusal(thrown, name);
  }
}

function contextOf(
  svids: X509SvidSource,
  { id, launchedBy }: { readonly id: SpiffeId; readonly launchedBy: readonly string[] },
): SecureContext {
  try {
    return callerContext(svids.x509Svid(id, launchedBy));
  } catch (cause) {
    throw new Refusal("not-ready", 503, `no certificate for the caller now: ${messageOf(cause)}`, { cause });
  }
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
