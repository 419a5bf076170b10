import { type ClientHttp2Session, type ClientHttp2Stream, connect, type OutgoingHttpHeaders } from "node:http2";
import { connect as connectSocket, type Socket } from "node:net";
import { status } from "@grpc/grpc-js";

/**
 * gRPC as bytes over `node:http2`, and not a gRPC library's client: a library hides what is looked at here (a repeated header, the bytes of a request,
 * methods that nobody declared) and has opinions of its own about answers.
 */

/** How a call ended. */
export interface Ended {
  readonly status: status;
  readonly details: string;
}

export type Received = { readonly message: Buffer } | Ended;

export interface GrpcStream {
  /** The next message that was not taken yet, else how the call ended. Waits for either. */
  next(): Promise<Received>;
  /** Every message that has come. */
  readonly messages: readonly Buffer[];
  /** Undefined while it is open. */
  readonly over: Ended | undefined;
  readonly ended: Promise<Ended>;
  cancel(): void;
}

/** One HTTP/2 connection, opened again if the server closes it. */
export interface GrpcConnection {
  /** Calls the method at `path` with one message. */
  open(path: string, body: Buffer, metadata: OutgoingHttpHeaders): GrpcStream;
  /** SETTINGS_MAX_CONCURRENT_STREAMS, as far as the server has told. */
  readonly maxConcurrentStreams: number;
  /** Drops the connection without a goodbye. */
  drop(): void;
}

/** `target` as `workloadEndpoint` gives it. Connects on first use. */
export function createGrpcConnection(target: string): GrpcConnection {
  let session: ClientHttp2Session | undefined;
  let socket: Socket | undefined;

  function connected(): ClientHttp2Session {
    if (session !== undefined && !session.closed && !session.destroyed) return session;
    const own = connectTo(target);
    const opened = connect("http://localhost", { createConnection: () => own });
    // Each call reports how it ended; the session has nothing to add.
    opened.on("error", () => {});
    session = opened;
    socket = own;
    return opened;
  }

  return {
    open(path, body, metadata) {
      const request = connected().request({
        ":method": "POST",
        ":path": path,
        "content-type": "application/grpc",
        te: "trailers",
        ...metadata,
      });
      request.end(frame(body));
      return receive(request);
    },
    get maxConcurrentStreams() {
      return session?.remoteSettings?.maxConcurrentStreams ?? Number.POSITIVE_INFINITY;
    },
    drop() {
      session?.destroy();
      socket?.destroy();
    },
  };
}

/** A socket to `target`: `unix:/path`, `ipv4:127.0.0.1:8000`, `ipv6:[::1]:8000`. */
export function connectTo(target: string): Socket {
  if (target.startsWith("unix:")) return connectSocket(target.slice("unix:".length));
  const [, host = "", port = ""] = /^ipv[46]:\[?(.*?)\]?:(\d+)$/.exec(target) ?? [];
  return connectSocket(Number(port), host);
}

/** gRPC over HTTP/2, "Length-Prefixed-Message": not compressed. */
function frame(message: Buffer): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

function receive(request: ClientHttp2Stream): GrpcStream {
  const messages: Buffer[] = [];
  const takers: ((received: Received) => void)[] = [];
  let taken = 0;
  let over: Ended | undefined;
  let headers: Readonly<Record<string, unknown>> = {};
  let trailers: Readonly<Record<string, unknown>> = {};
  let bytes = Buffer.alloc(0);
  let failure: Error | undefined;
  const { promise: ended, resolve: settle } = Promise.withResolvers<Ended>();

  const deliver = (): void => {
    while (takers.length > 0) {
      const message = messages[taken];
      if (message !== undefined) {
        taken += 1;
        takers.shift()?.({ message });
      } else if (over !== undefined) takers.shift()?.(over);
      else return;
    }
  };
  request.on("response", (received) => {
    headers = received;
  });
  request.on("trailers", (received) => {
    trailers = received;
  });
  request.on("data", (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    while (bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt32BE(1)) {
      const end = 5 + bytes.readUInt32BE(1);
      messages.push(bytes.subarray(5, end));
      bytes = bytes.subarray(end);
    }
    deliver();
  });
  request.on("error", (error) => {
    failure = error;
  });
  request.on("close", () => {
    over = outcomeOf({ ...headers, ...trailers }, request.rstCode, failure);
    settle(over);
    deliver();
  });

  return {
    next() {
      return new Promise((resolve) => {
        takers.push(resolve);
        deliver();
      });
    },
    messages,
    get over() {
      return over;
    },
    ended,
    // 8: CANCEL.
    cancel: () => request.close(8),
  };
}

/** HTTP statuses of answers that are not gRPC's: doc/http-grpc-status-mapping.md. */
const OF_HTTP: Readonly<Record<number, status>> = {
  400: status.INTERNAL,
  401: status.UNAUTHENTICATED,
  403: status.PERMISSION_DENIED,
  404: status.UNIMPLEMENTED,
  429: status.UNAVAILABLE,
  502: status.UNAVAILABLE,
  503: status.UNAVAILABLE,
  504: status.UNAVAILABLE,
};

function outcomeOf(
  headers: Readonly<Record<string, unknown>>,
  rstCode: number | undefined,
  failure: Error | undefined,
): Ended {
  const code = headers["grpc-status"];
  if (code !== undefined) return { status: Number(code), details: decoded(headers["grpc-message"]) };
  const http = headers[":status"];
  if (typeof http === "number" && http !== 200) {
    return { status: OF_HTTP[http] ?? status.UNKNOWN, details: `HTTP status ${http}` };
  }
  if (failure !== undefined || headers[":status"] === undefined) {
    return { status: status.UNAVAILABLE, details: failure?.message ?? "the connection was closed" };
  }
  return { status: status.INTERNAL, details: `the stream ended without a gRPC status (reset code ${rstCode ?? 0})` };
}

/** `grpc-message` is percent-encoded. */
function decoded(message: unknown): string {
  const text = typeof message === "string" ? message : "";
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
