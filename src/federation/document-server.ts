import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer as createHttpsServer, type Server as HttpsServer } from "node:https";
import type { Socket } from "node:net";
import { CodedError, codeOf, messageOf } from "../coded-error.js";
import type { HostPort } from "../config/config.js";
import { formatAddress } from "../config/describe-federation.js";
import { createServer as createHttpServer } from "../platform/node-http.js";
import { type ServerCertificate, serverTlsOptions } from "./server-certificate.js";

/** JSON that anybody may read, at one exact path. */
export interface PublicDocument {
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Made anew for each answer. What it throws is answered with 503. */
  body(): string;
}

export interface DocumentServerOptions {
  /** Port 0 takes a free one. */
  readonly listen: HostPort;
  readonly documents: readonly PublicDocument[];
  /** Undefined: plain HTTP. It passes to the server, and is closed with it or when it cannot start. */
  readonly certificate: ServerCertificate | undefined;
  /** `host:port` as further names under which verifiers come, beside those of the certificate. */
  readonly names?: readonly string[];
  /** Said in errors: `federation.endpoint`. */
  readonly what: string;
  readonly onProblem: (thrown: unknown) => void;
}

export interface DocumentServer {
  readonly address: HostPort;
  close(): Promise<void>;
}

/** Documents are small and public: whoever keeps a connection longer has no business with it. */
const LIMITS = {
  headersTimeout: 5_000,
  requestTimeout: 10_000,
  keepAliveTimeout: 5_000,
  connectionsCheckingInterval: 2_000,
};
const HANDSHAKE_TIMEOUT_MS = 5_000;
const MOST_CONNECTIONS = 256;

/**
 * Serves `documents` for GET at their exact paths, and nothing else. Throws CodedError `port-in-use` or `cannot-listen`.
 *
 * On a loopback address the `Host` must be one of this listener's, so that no page in a browser reaches it by another name (D16). What listens for
 * other machines goes by names that only they know; the documents are public, hold no secret and change nothing.
 */
export async function serveDocuments(options: DocumentServerOptions): Promise<DocumentServer> {
  const { certificate } = options;
  try {
    const { address, close } = await listenAndAnswer(options);
    return {
      address,
      async close() {
        certificate?.close();
        await close();
      },
    };
  } catch (thrown) {
    certificate?.close();
    throw thrown;
  }
}

async function listenAndAnswer(options: DocumentServerOptions): Promise<DocumentServer> {
  const { listen, certificate, what } = options;
  let hosts: ReadonlySet<string> | undefined;
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    try {
      answerDocument(request, response, options.documents, hosts);
    } catch (thrown) {
      options.onProblem(thrown);
      refuse(response, 503, "the document is not available");
    }
    // Bodies are never read, so nothing more on this connection can be understood.
    if (hasBody(request)) response.once("finish", () => request.socket.destroy());
  };
  const server: Server | HttpsServer =
    certificate === undefined
      ? createHttpServer(LIMITS, answer)
      : createHttpsServer(
          { ...LIMITS, ...serverTlsOptions(certificate.current()), handshakeTimeout: HANDSHAKE_TIMEOUT_MS },
          answer,
        );
  server.maxConnections = MOST_CONNECTIONS;
  // Node's own list knows no connection that is still shaking hands.
  const connections = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    connections.add(socket);
    socket.once("close", () => connections.delete(socket));
  });
  server.on("clientError", (_error, socket) => socket.destroy());
  const forgetCertificate = certificate?.onChange((next) =>
    (server as HttpsServer).setSecureContext(serverTlsOptions(next)),
  );
  const names = [...(options.names ?? []), ...(certificate?.dnsNames ?? [])];
  try {
    const port = await listenOn(server, listen, what);
    hosts = isLoopbackAddress(listen.host) ? hostsOf({ ...listen, port }, names) : undefined;
    return {
      address: { host: listen.host, port },
      async close() {
        forgetCertificate?.();
        const closed = new Promise<void>((resolve) => server.close(() => resolve()));
        for (const connection of connections) connection.destroy();
        await closed;
      },
    };
  } catch (thrown) {
    forgetCertificate?.();
    throw thrown;
  }
}

function answerDocument(
  request: IncomingMessage,
  response: ServerResponse,
  documents: readonly PublicDocument[],
  hosts: ReadonlySet<string> | undefined,
): void {
  const document = documents.find(({ path }) => path === request.url);
  const refusal = refusalOf(request, document, hosts);
  if (refusal !== undefined || document === undefined) {
    refuse(response, refusal?.status ?? 404, refusal?.text ?? "not found", refusal?.headers);
    return;
  }
  const body = Buffer.from(document.body(), "utf8");
  response.writeHead(200, {
    "content-type": "application/json",
    "content-length": body.length,
    "x-content-type-options": "nosniff",
    ...document.headers,
  });
  response.end(body);
}

interface Refused {
  readonly status: number;
  readonly text: string;
  readonly headers?: Record<string, string>;
}

function refusalOf(
  { headers, httpVersion, method }: IncomingMessage,
  document: PublicDocument | undefined,
  hosts: ReadonlySet<string> | undefined,
): Refused | undefined {
  // Node's parser takes HTTP/0.9 and HTTP/2.0 on a request line too.
  if (!httpVersion.startsWith("1.")) return { status: 505, text: "only HTTP/1.1" };
  if (headers.origin !== undefined) return { status: 403, text: "pages in browsers have no business here" };
  if (hosts !== undefined && !hosts.has(headers.host?.toLowerCase() ?? "")) {
    return { status: 421, text: "this Host is not served here" };
  }
  if (document === undefined) return { status: 404, text: "not found" };
  return method === "GET" ? undefined : { status: 405, text: "only GET", headers: { allow: "GET" } };
}

function refuse(response: ServerResponse, status: number, text: string, headers: Record<string, string> = {}): void {
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8", connection: "close", ...headers });
  response.end(`${text}\n`);
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";
}

function hostsOf(address: HostPort, names: readonly string[]): ReadonlySet<string> {
  const own = ["127.0.0.1", "localhost", "[::1]", ...names.filter((name) => !name.includes(":"))];
  const withPort = own.map((host) => `${host}:${address.port}`);
  return new Set([...withPort, ...own, ...names, formatAddress(address)].map((host) => host.toLowerCase()));
}

/** 127.0.0.0/8, ::1 and localhost: what no other machine can reach. */
export function isLoopbackAddress(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host);
}

function listenOn(server: Server | HttpsServer, { host, port }: HostPort, what: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error) => {
      const inUse = codeOf(error) === "EADDRINUSE";
      const message = inUse
        ? `port ${port} of ${what} is held by another program`
        : `${what} cannot listen on ${formatAddress({ host, port })}: ${messageOf(error)}`;
      reject(
        new CodedError(inUse ? "port-in-use" : "cannot-listen", message, {
          hint: `set "listen" of ${what} to a free address of this machine`,
          cause: error,
        }),
      );
    };
    server.once("error", failed);
    server.listen({ host, port, exclusive: true }, () => {
      server.off("error", failed);
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : port);
    });
  });
}
