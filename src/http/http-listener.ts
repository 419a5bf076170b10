import type { Server as HttpServer, IncomingMessage, ServerOptions, ServerResponse } from "node:http";
import type { Server as NetServer, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { codeOf } from "../coded-error.js";
import { listenOnDescriptor } from "./listen.js";
import type { RefusalCode } from "./refusal.js";

/** Limits and parser of every HTTP listener of the relay: HTTP/1.1, Node's strict parser (D16). */
export const httpListenerOptions: ServerOptions = {
  insecureHTTPParser: false,
  maxHeaderSize: 32 * 1024,
  headersTimeout: 10_000,
  // A body may stream for as long as it likes; what is parsed has its own deadline.
  requestTimeout: 0,
  keepAliveTimeout: 65_000,
  connectionsCheckingInterval: 5_000,
  // We answer a missing Host ourselves, on record.
  requireHostHeader: false,
};

const MAX_CONNECTIONS = 1_024;
/** Connections beyond those that are served, to say so on; the kernel's end is all that later ones see. */
const REFUSED_AT_ONCE = 64;
/** How long a refused peer may take to close its side. */
const LINGER_MS = 5_000;

/** A prepared listener's end. */
export interface HttpListener {
  /** Stops listening, lets running requests finish for `graceMs`, then cuts them. */
  close(graceMs: number): Promise<void>;
}

/** Sets what has no option, and refuses in words what never becomes a request. At most `maxConnections` are served at a time. */
export function prepareHttpListener(
  server: HttpServer,
  refused: (socket: Duplex, code: RefusalCode, reason: string) => void,
  maxConnections = MAX_CONNECTIONS,
): HttpListener {
  const sockets = new Set<Socket>();
  server.maxConnections = maxConnections + REFUSED_AT_ONCE;
  serveAtMost(server, maxConnections, (socket) => {
    const reason = `this listener serves ${maxConnections} connections at a time`;
    refused(socket, "connection-limit", reason);
    endWith(socket, 503, "Service Unavailable", "connection-limit", reason);
  });
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  // Node would silently drop headers beyond its own count; ours is checked and refused.
  server.maxHeadersCount = 0;
  // The one listener for CONNECT has set its own before.
  if (server.listenerCount("connect") === 0) {
    server.on("connect", (_request: IncomingMessage, socket: Duplex) => {
      refused(socket, "upgrade-refused", "CONNECT is refused: the relay is no forward proxy");
      endWith(socket, 501, "Not Implemented", "upgrade-refused", "CONNECT is refused: the relay is no forward proxy");
    });
  }
  const answers = createAnswers();
  let draining = false;
  server.prependListener("request", ({ socket }: IncomingMessage, response: ServerResponse) => {
    answers.begin(socket, response);
    if (draining) endAfter(response, socket);
  });
  // Node would answer 417 by itself, on no record.
  server.on("checkExpectation", (request: IncomingMessage, response: ServerResponse) => {
    server.emit("request", request, response);
  });
  server.on("clientError", (error: Error, socket: Duplex) => {
    const code = codeOf(error);
    const current = answers.underWayOn(socket);
    if (current !== undefined) {
      // The body of a request broke off. An answer that is complete goes out and closes the connection; one under way cannot be trusted to fit.
      if (!current.writableEnded) socket.destroy();
      return;
    }
    if (!socket.writable || code === "ECONNRESET") {
      socket.destroy();
      return;
    }
    if (code === "ERR_HTTP_REQUEST_TIMEOUT") {
      endWith(socket, 408, "Request Timeout", "http-malformed", "the request did not arrive in time");
      return;
    }
    if (code === "HPE_HEADER_OVERFLOW") {
      refused(socket, "header-count", "the headers are larger than 32 KiB");
      endWith(socket, 431, "Request Header Fields Too Large", "header-count", "the headers are larger than 32 KiB");
      return;
    }
    const reason = `the request is not HTTP/1.1 as RFC 9112 has it (${code})`;
    refused(socket, "http-malformed", reason);
    endWith(socket, 400, "Bad Request", "http-malformed", reason);
  });
  return {
    async close(graceMs) {
      // Not only what Node counts as HTTP connections: also those that never came out of their TLS handshake.
      const cut = () => {
        for (const socket of sockets) socket.destroy();
      };
      if (!server.listening) return cut();
      draining = true;
      answers.visit(endAfter);
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      const timer = setTimeout(cut, graceMs);
      await closed;
      clearTimeout(timer);
    },
  };
}

/** The answers that are under way, one on a connection. */
interface Answers {
  begin(socket: Duplex, response: ServerResponse): void;
  underWayOn(socket: Duplex): ServerResponse | undefined;
  visit(each: (response: ServerResponse, socket: Duplex) => void): void;
}

/**
 * Members come and go with connections, not with calls. A map of V8 that something is taken out of and put into again and again is copied each time it has
 * filled with holes, and each former copy keeps the next one alive: once one of them is old, all calls since then survive young collections.
 */
function createAnswers(): Answers {
  const connections = new Map<Duplex, { response: ServerResponse | undefined }>();
  const begun = (socket: Duplex) => {
    const connection = { response: undefined };
    connections.set(socket, connection);
    socket.once("close", () => connections.delete(socket));
    return connection;
  };
  return {
    begin(socket, response) {
      const connection: { response: ServerResponse | undefined } = connections.get(socket) ?? begun(socket);
      connection.response = response;
      // `on`: it closes once, and of each call what `once` wraps around is garbage.
      response.on("close", () => {
        connection.response = undefined;
      });
    },
    underWayOn: (socket) => connections.get(socket)?.response,
    visit(each) {
      for (const [socket, { response }] of connections) if (response !== undefined) each(response, socket);
    },
  };
}

/** Puts itself between a connection and the HTTP parser: beyond `most` at a time, `refuse` has them. */
function serveAtMost(server: HttpServer, most: number, refuse: (socket: Socket) => void): void {
  // Over TLS a connection is one after its handshake, where it can be told something.
  const event = server.listenerCount("secureConnection") > 0 ? "secureConnection" : "connection";
  const toParser = server.listeners(event) as ((socket: Socket) => void)[];
  server.removeAllListeners(event);
  let served = 0;
  server.on(event, (socket: Socket) => {
    if (served >= most) {
      socket.on("error", () => socket.destroy());
      refuse(socket);
      return;
    }
    served += 1;
    socket.once("close", () => {
      served -= 1;
    });
    for (const listener of toParser) listener.call(server, socket);
  });
}

/** The answer is the last on its connection: kept alive, one that was answered would outlast the drain. */
function endAfter(response: ServerResponse, socket: Duplex): void {
  if (response.headersSent) response.once("close", () => socket.end());
  else response.shouldKeepAlive = false;
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

/** Ends a connection on which no request can be answered with one canned answer. */
export function endWith(
  socket: Duplex,
  status: number,
  title: string,
  code: string,
  detail: string,
  more: Readonly<Record<string, string | undefined>> = {},
): void {
  const body = JSON.stringify({ type: `about:blank#${code}`, title, status, code, detail, ...more });
  socket.end(
    `HTTP/1.1 ${status} ${title}\r\nContent-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
  drainAndClose(socket);
}

/** Ends a connection on which the last answer is out. What still comes is thrown away; without reading it the answer would be lost in a reset. */
export function drainAndClose(socket: Duplex): void {
  socket.end();
  socket.resume();
  const patience = setTimeout(() => socket.destroy(), LINGER_MS);
  patience.unref();
  socket.once("close", () => clearTimeout(patience));
}
