import type { ServerHttp2Session, ServerHttp2Stream, ServerOptions } from "node:http2";
import type { Server as NetServer, Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { HttpListener } from "../http/http-listener.js";
import type { RawHeaders } from "../http/request-headers.js";
import { MAX_HEAD_BYTES } from "./grpc-request.js";

const { constants, performServerHandshake } = process.getBuiltinModule("node:http2");

const MAX_CONNECTIONS = 1_024;
const SETTINGS_TIMEOUT_MS = 10_000;
/** How long a caller may go on sending what nobody wants. */
const LINGER_MS = 5_000;

/**
 * Limits of every HTTP/2 connection that the relay takes. nghttp2 has those of frames: it ends a connection that sends more than 8 CONTINUATION for one
 * head (CVE-2024-27316) or leaves more than 1,000 answers to SETTINGS and PING unread, and refuses heads that break RFC 9113 §8.
 */
const LIMITS = {
  settings: { enablePush: false, maxConcurrentStreams: 250, maxHeaderListSize: MAX_HEAD_BYTES },
  // 10 MiB of buffers a connection.
  maxSessionMemory: 10,
  maxHeaderListPairs: 104,
  maxSendHeaderBlockLength: 64 * 1024,
  maxDeflateDynamicTableSize: 4_096,
  maxSettings: 32,
  maxOutstandingPings: 10,
  // Broken or refused streams of one connection.
  maxSessionInvalidFrames: 100,
  maxSessionRejectedStreams: 100,
  // Rapid reset (CVE-2023-44487): so many cancelled streams at once, and so many more a second.
  streamResetBurst: 500,
  streamResetRate: 100,
  strictSingleValueFields: false,
} satisfies ServerOptions;

/** A stream that a caller has opened, and its head as it came. */
export interface IncomingStream {
  readonly stream: ServerHttp2Stream;
  readonly raw: RawHeaders;
  /** No body follows. */
  readonly ended: boolean;
  /** What came behind the body, once it has been read to its end. */
  trailers: RawHeaders;
}

/** Speaks HTTP/2 on a connection that is known to begin with it. */
export function serveHttp2(socket: Duplex, onStream: (incoming: IncomingStream) => void): ServerHttp2Session {
  const session = performServerHandshake(socket, LIMITS);
  session.on("error", () => session.destroy());
  const impatience = setTimeout(() => session.destroy(), SETTINGS_TIMEOUT_MS);
  impatience.unref();
  session.once("remoteSettings", () => clearTimeout(impatience));
  session.once("close", () => clearTimeout(impatience));
  session.on("stream", (stream: ServerHttp2Stream, _headers: unknown, flags: number, raw: string[]) => {
    stream.on("error", () => undefined);
    const incoming = {
      stream,
      raw,
      ended: (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0,
      trailers: [] as RawHeaders,
    };
    // They may come before anybody reads the body.
    stream.once("trailers", (_trailers: unknown, _flags: number, behind: string[]) => {
      incoming.trailers = behind;
    });
    onStream(incoming);
  });
  return session;
}

/**
 * For a stream whose answer is complete. What still comes of the request is thrown away; a reset could overtake the answer, so it comes only to a
 * caller that goes on for long.
 */
export function letGo(stream: ServerHttp2Stream): void {
  if (stream.destroyed) return;
  stream.resume();
  const patience = setTimeout(() => stream.close(), LINGER_MS);
  patience.unref();
  stream.once("close", () => clearTimeout(patience));
}

/** Sets what has no option; `sessions` are those that run on connections of `server`. */
export function prepareHttp2Listener(server: NetServer, sessions: ReadonlySet<ServerHttp2Session>): HttpListener {
  const sockets = new Set<Socket>();
  server.maxConnections = MAX_CONNECTIONS;
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.once("close", () => sockets.delete(socket));
  });
  return {
    async close(graceMs) {
      // Also connections that never came to speak HTTP/2.
      const cut = () => {
        for (const socket of sockets) socket.destroy();
      };
      if (!server.listening) return cut();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const session of sessions) session.close();
      const timer = setTimeout(cut, graceMs);
      await closed;
      clearTimeout(timer);
    },
  };
}
