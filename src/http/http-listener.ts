import type { Server as NetServer, Socket } from "node:net";
import type { Server as TlsServer } from "node:tls";
import { drainAndClose, endWith } from "./connection-end.js";
import type { IncomingRequest } from "./incoming-request.js";
import { listenOnDescriptor } from "./listen.js";
import type { RefusalCode } from "./refusal.js";
import { ServerConnection, type ServerOwner } from "./server-connection.js";

const MAX_CONNECTIONS = 1_024;
/** Connections beyond those that are served, to say so on; the kernel's end is all that later ones see. */
const REFUSED_AT_ONCE = 64;
/** How often connections are looked at that have waited too long. */
const LOOK_MS = 1_000;

/** A listener's end. */
export interface HttpListener {
  /** Stops listening, lets running requests finish for `graceMs`, then cuts them. */
  close(graceMs: number): Promise<void>;
}

/** Who is served. */
export interface HttpService {
  /** As `ServerOwner.request`. */
  readonly request: ServerOwner["request"];
  /** As `ServerOwner.changesProtocol`; none does where this is not given. */
  readonly changesProtocol?: (request: IncomingRequest) => boolean;
  /** Told of what never becomes a request, before the caller is. */
  readonly refused: (socket: Socket, code: RefusalCode, reason: string) => void;
  /** Served at a time. Default 1,024. */
  readonly maxConnections?: number | undefined;
}

/**
 * Serves HTTP/1.1 on the connections of `server`, over TLS on those that have come out of their handshake. Node's parser reads them, and nothing that is no
 * request gets any further (D16).
 */
export function serveHttp(server: NetServer | TlsServer, service: HttpService): HttpListener {
  const most = service.maxConnections ?? MAX_CONNECTIONS;
  const sockets = new Set<Socket>();
  const connections = new Set<ServerConnection>();
  const owner = {
    isDraining: false,
    request: service.request,
    changesProtocol: service.changesProtocol ?? (() => false),
    refused: service.refused,
  };
  let looking: NodeJS.Timeout | undefined;
  const look = () => {
    const now = performance.now();
    for (const connection of connections) connection.look(now);
  };
  server.maxConnections = most + REFUSED_AT_ONCE;
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  // Over TLS a connection is one after its handshake, where it can be told something.
  server.on("setSecureContext" in server ? "secureConnection" : "connection", (socket: Socket) => {
    if (connections.size >= most) {
      const reason = `this listener serves ${most} connections at a time`;
      socket.on("error", () => socket.destroy());
      service.refused(socket, "connection-limit", reason);
      endWith(socket, 503, "Service Unavailable", "connection-limit", reason);
      return;
    }
    socket.setNoDelay(true);
    const connection = new ServerConnection(socket, owner);
    connections.add(connection);
    looking ??= setInterval(look, LOOK_MS).unref();
    socket.once("close", () => {
      connections.delete(connection);
      if (connections.size > 0) return;
      clearInterval(looking);
      looking = undefined;
    });
    if (owner.isDraining) drainAndClose(socket);
  });
  return {
    async close(graceMs) {
      // Also those that never came out of their TLS handshake.
      const cut = () => {
        for (const socket of sockets) socket.destroy();
      };
      if (!server.listening) return cut();
      owner.isDraining = true;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const connection of connections) connection.drain();
      const timer = setTimeout(cut, graceMs);
      await closed;
      clearTimeout(timer);
    },
  };
}

/**
 * Serves on sockets that listen inside a sandbox, each by a server of its own; the descriptors pass to them. They are among `listeners`, a leg's own, until the
 * end that is returned.
 */
export function listenInsideOn(
  descriptors: readonly number[],
  newServer: () => { readonly server: NetServer; readonly listener: HttpListener },
  listeners: Set<HttpListener>,
): () => Promise<void> {
  const inside = descriptors.map((fd) => {
    const { server, listener } = newServer();
    // A socket that is none ends as an error of its server: nobody is served on it.
    server.on("error", () => void listener.close(0));
    listenOnDescriptor(server, fd);
    listeners.add(listener);
    return listener;
  });
  return async () => {
    for (const listener of inside) listeners.delete(listener);
    await Promise.all(inside.map((listener) => listener.close(0)));
  };
}
