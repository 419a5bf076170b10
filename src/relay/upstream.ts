import { ClientPool } from "../http/client-pool.js";
import type { Onward } from "../http/outgoing-call.js";
import type { RunningService } from "./running-service.js";
import { createSessionPool, type SessionPool } from "./session-pool.js";
import { openUpstreamWire } from "./upstream-wire.js";

/** The service behind an inbound leg. */
export interface UpstreamConnection {
  readonly dispatcher: Onward;
  /** For services that speak gRPC. */
  readonly sessions: SessionPool;
  /** What it is called in `Host`: its own address, so that its own check against DNS rebinding holds. */
  readonly host: string;
  /** Lets calls finish. */
  retire(): void;
  destroy(): Promise<void>;
}

const MAX_CONNECTIONS = 512;
/** Less than the 5 s of Node's own server, the shortest that is common. */
const KEEP_ALIVE_MS = 4_000;

/** Connects to the upstream of `service` by TCP or Unix socket. Throws Error for an `mtls` upstream, which has no inbound leg. */
export function connectUpstream(service: RunningService, answerTimeoutMs: number): UpstreamConnection {
  const { upstream } = service;
  if (upstream.kind === "mtls" || upstream.kind === "egress") {
    throw new Error(`an ${upstream.kind} upstream is reached by the outbound leg`);
  }
  const host = upstream.kind === "unix" ? "localhost" : hostAndPort(upstream.host, upstream.port);
  const pool = new ClientPool({
    connect: (onread, settled) => void openUpstreamWire(service, { onread }).then(settled, settled),
    maxConnections: MAX_CONNECTIONS,
    answerTimeoutMs,
    keepAliveMs: KEEP_ALIVE_MS,
  });
  const sessions = createSessionPool(`http://${host}`, () => openUpstreamWire(service));
  return {
    dispatcher: pool,
    sessions,
    host,
    retire() {
      sessions.retire();
      void pool.close();
    },
    destroy() {
      sessions.destroy();
      return pool.destroy();
    },
  };
}

/** `host:port`, with an IPv6 address in brackets. */
export function hostAndPort(host: string, port: number): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}
