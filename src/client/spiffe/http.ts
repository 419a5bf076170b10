import { createServer, type RequestListener } from "node:http";
import type { Server } from "node:net";
import { Agent, type buildConnector, Dispatcher, fetch as undiciFetch } from "undici";
import { CodedError } from "../../coded-error.js";
import type { Authorizer } from "./authorize.js";
import { connectTls, createTlsServer, type TlsServerOptions } from "./tls.js";
import type { TlsIdentity } from "./x509-source.js";

/**
 * A dispatcher for undici (`fetch`, `request`, any client that takes one) whose every connection is mutual TLS to a server that `authorize`
 * allows. After each rotation new connections present the new SVID and running requests end on the old. Only `https:` URLs: a request that
 * would leave without TLS fails with CodedError `spiffe-https-only`.
 */
export function createDispatcher(identity: TlsIdentity, authorize: Authorizer): Dispatcher {
  return new SpiffeDispatcher(identity, authorize);
}

class SpiffeDispatcher extends Dispatcher {
  #agent: Agent;
  readonly #open: () => Agent;
  readonly #forget: () => void;
  readonly #retired = new Set<Agent>();

  constructor(identity: TlsIdentity, authorize: Authorizer) {
    super();
    this.#open = () =>
      new Agent({ connect: connectorOf(identity, authorize), allowH2: false, keepAliveTimeout: 30_000 });
    this.#agent = this.#open();
    this.#forget = identity.onUpdate(() => this.#renew());
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    return this.#agent.dispatch(options as Agent.DispatchOptions, handler);
  }

  override close(): Promise<void>;
  override close(callback: () => void): void;
  override close(callback?: () => void): Promise<void> | undefined {
    return this.#end((agent) => agent.close(), callback);
  }

  override destroy(): Promise<void>;
  override destroy(error: Error | null): Promise<void>;
  override destroy(callback: () => void): void;
  override destroy(error: Error | null, callback: () => void): void;
  override destroy(first?: Error | null | (() => void), second?: () => void): Promise<void> | undefined {
    const error = first instanceof Error ? first : null;
    return this.#end((agent) => agent.destroy(error), typeof first === "function" ? first : second);
  }

  #end(one: (agent: Agent) => Promise<void>, callback: (() => void) | undefined): Promise<void> | undefined {
    this.#forget();
    const ended = Promise.all([this.#agent, ...this.#retired].map(one)).then(() => {});
    if (callback === undefined) return ended;
    ended.then(callback, callback);
    return undefined;
  }

  /** What runs goes on; new requests get new connections. */
  #renew(): void {
    const old = this.#agent;
    this.#agent = this.#open();
    this.#retired.add(old);
    void old.close().finally(() => this.#retired.delete(old));
  }
}

function connectorOf(identity: TlsIdentity, authorize: Authorizer): buildConnector.connector {
  return ({ hostname, port, protocol }, callback) => {
    if (protocol !== "https:") {
      callback(
        new CodedError("spiffe-https-only", `a workload is known by its certificate: ${protocol} has none`),
        null,
      );
      return;
    }
    const host = hostname.replace(/^\[(.*)\]$/, "$1");
    connectTls(identity, { host, port: Number(port || 443), authorize, alpnProtocols: ["http/1.1"] }).then(
      (socket) => callback(null, socket.setNoDelay(true)),
      (error: Error) => callback(error, null),
    );
  };
}

export interface SpiffeFetch {
  (input: Parameters<typeof undiciFetch>[0], init?: Parameters<typeof undiciFetch>[1]): ReturnType<typeof undiciFetch>;
  /** Lets running requests end, then closes their connections. */
  close(): Promise<void>;
}

/** `fetch` over `createDispatcher`. The URL's host says where to go, `authorize` who must be there. */
export function createSpiffeFetch(identity: TlsIdentity, authorize: Authorizer): SpiffeFetch {
  const dispatcher = createDispatcher(identity, authorize);
  const fetch = (input: Parameters<typeof undiciFetch>[0], init?: Parameters<typeof undiciFetch>[1]) =>
    undiciFetch(input, { ...init, dispatcher });
  return Object.assign(fetch, { close: () => dispatcher.close() });
}

/** An HTTPS server for authorized workloads only; `peerOf(request.socket)` is who asks. Listen on, and close, what it returns. */
export function createHttpsServer(identity: TlsIdentity, options: TlsServerOptions, listener: RequestListener): Server {
  const http = createServer(listener);
  const server = createTlsServer(identity, { alpnProtocols: ["http/1.1"], ...options }, (socket) => {
    http.emit("connection", socket);
  });
  // `close` waits for connections; those that only wait for a next request need not be waited for.
  const close = server.close.bind(server);
  server.close = (callback) => {
    http.close();
    http.closeIdleConnections();
    return close(callback);
  };
  return server;
}
