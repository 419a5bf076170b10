import type { ServerHttp2Session } from "node:http2";
import { createServer, type Server as NetServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { endWith } from "../http/connection-end.js";
import type { HttpListener } from "../http/http-listener.js";
import type { RefusalCode } from "../http/refusal.js";
import type { RelayParts } from "./exchange.js";
import { type GrpcLeg, runGrpcCall } from "./grpc-call.js";
import { prepareHttp2Listener, serveHttp2 } from "./http2-listener.js";

/** RFC 9113 §3.4: what a client that knows beforehand begins with. */
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
/** The first line of a request in HTTP/1, which is worth an answer that it can read. */
const HTTP1 = /^[A-Z]+ [^\s]+ HTTP\/1\.[01]\r?\n/;
const PREFACE_TIMEOUT_MS = 10_000;
const NO_HTTP2 = "this service speaks gRPC: HTTP/2 with prior knowledge";

type Refused = (socket: Duplex, code: RefusalCode, reason: string) => void;

/** A listener for gRPC without TLS: HTTP/2 with prior knowledge, and an answer in words to HTTP/1.1. */
export function createPlainGrpcServer(
  parts: RelayParts,
  leg: GrpcLeg,
  refused: Refused,
): { readonly server: NetServer; readonly listener: HttpListener } {
  const sessions = new Set<ServerHttp2Session>();
  const server = createServer({ noDelay: true });
  const listener = prepareHttp2Listener(server, sessions);
  server.on("connection", (socket: Socket) => {
    whenPrefaceIsRead(socket, (speaks) => {
      if (speaks === "h2") serveGrpc(parts, leg, socket, sessions);
      else if (speaks === "http/1") refuseHttp1(socket, refused);
      else {
        refused(socket, "http-version", NO_HTTP2);
        socket.destroy();
      }
    });
  });
  return { server, listener };
}

/** Takes calls on a connection that speaks HTTP/2. */
export function serveGrpc(
  parts: RelayParts,
  leg: GrpcLeg,
  socket: Duplex,
  sessions: Set<ServerHttp2Session>,
): ServerHttp2Session {
  const session = serveHttp2(socket, (incoming) => void runGrpcCall(parts, leg, incoming, socket));
  sessions.add(session);
  session.once("close", () => sessions.delete(session));
  return session;
}

export function refuseHttp1(socket: Duplex, refused: Refused): void {
  refused(socket, "http-version", NO_HTTP2);
  endWith(socket, 505, "HTTP Version Not Supported", "http-version", NO_HTTP2);
}

function whenPrefaceIsRead(socket: Socket, decided: (speaks: "h2" | "http/1" | "neither") => void): void {
  let read = Buffer.alloc(0);
  const impatience = setTimeout(() => socket.destroy(), PREFACE_TIMEOUT_MS);
  impatience.unref();
  const done = () => {
    clearTimeout(impatience);
    socket.off("readable", more);
    socket.off("close", done);
  };
  const more = () => {
    for (let chunk = socket.read() as Buffer | null; chunk !== null; chunk = socket.read() as Buffer | null) {
      read = Buffer.concat([read, chunk]);
    }
    const length = Math.min(read.length, PREFACE.length);
    const fits = PREFACE.subarray(0, length).equals(read.subarray(0, length));
    if (fits && length < PREFACE.length) return;
    done();
    if (fits) socket.unshift(read);
    decided(fits ? "h2" : HTTP1.test(read.toString("latin1")) ? "http/1" : "neither");
  };
  socket.on("readable", more);
  socket.once("close", done);
}
