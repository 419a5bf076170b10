import { createServer } from "node:net";
import { Server, type ServerOptions } from "@grpc/grpc-js";
import type { CallerAttestor } from "../attestation/caller.js";
import type { AuditLog } from "../audit/audit-log.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import type {
  JwtBundleSource,
  JwtSvidIssuer,
  WitBundleSource,
  WitSvidSource,
  X509BundleSource,
  X509SvidSource,
} from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import { listenOnUnixSocket } from "../platform/unix-socket-listener.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { createAuthorization, type WorkloadApiObserver } from "./authorization.js";
import { createConnections } from "./connections.js";
import { SecretDiscoveryServiceService } from "./generated/envoy/service/secret/v3/sds.js";
import { ServerReflectionService } from "./generated/grpc/reflection/v1/reflection.js";
import { ServerReflectionService as ServerReflectionV1AlphaService } from "./generated/grpc/reflection/v1alpha/reflection.js";
import { HealthService } from "./generated/health.js";
import { type SpiffeWorkloadAPIServer, SpiffeWorkloadAPIService } from "./generated/workload.js";
import { healthService } from "./health.js";
import { createGrpcConnections } from "./http2/server-side.js";
import { surviveGoneStreams } from "./http2/survive-gone-streams.js";
import { fetchJwtBundles, fetchJwtSvid, validateJwtSvid } from "./jwt.js";
import { createOpenStreams, type OpenStreams } from "./open-streams.js";
import { serverReflectionInfo } from "./reflection.js";
import { secretDiscoveryService } from "./sds/service.js";
import { requireSecurityHeader } from "./security-header.js";
import { fetchWitBundles, fetchWitSvid } from "./wit.js";
import { fetchX509Bundles, fetchX509Svid } from "./x509.js";

export interface WorkloadApiDependencies {
  readonly trustDomain: TrustDomain;
  readonly attestor: Pick<CallerAttestor, "ofUnixSocket">;
  readonly registry: Pick<IdentityRegistry, "entitlementsOf" | "onChange">;
  readonly svids: X509SvidSource;
  readonly bundles: X509BundleSource;
  readonly jwtIssuer: JwtSvidIssuer;
  readonly jwtBundles: JwtBundleSource;
  readonly witSvids: WitSvidSource;
  readonly witBundles: WitBundleSource;
  readonly audit: Pick<AuditLog, "append" | "appendInTurn">;
  readonly clock: Clock;
  readonly observer?: WorkloadApiObserver;
  readonly limits?: Partial<WorkloadApiLimits>;
}

/** What one client, however rude, can make the daemon hold. */
export interface WorkloadApiLimits {
  /** Connections at once, of all processes together; more are closed at accept. */
  readonly connections: number;
  /** RPCs at once on one connection (HTTP/2 SETTINGS_MAX_CONCURRENT_STREAMS); more wait in the client, or fail there. */
  readonly streamsPerConnection: number;
  /** Bytes of one request; requests hold a token at most. */
  readonly requestBytes: number;
  /** A connection on which no RPC comes for this long is closed. */
  readonly firstCallMs: number;
  /** A connection without a running RPC for this long is closed; clients connect again by themselves. */
  readonly idleMs: number;
}

const defaultLimits: WorkloadApiLimits = {
  connections: 4096,
  streamsPerConnection: 128,
  requestBytes: 256 * 1024,
  firstCallMs: 30_000,
  idleMs: 15 * 60_000,
};

/** How long statuses have to leave before their connection is closed. */
const RETIRE_MS = 100;

/** The SPIFFE Workload API on a Unix socket. */
export interface WorkloadApi {
  /**
   * Serves on the Unix socket `path`. `mode` of the socket file: by default any local process may connect, within a folder whose mode the daemon decides.
   * Throws CodedError `socket-in-use` or `socket-path-taken`.
   */
  listen(path: string, mode?: number): Promise<void>;
  /** Ends open streams with Unavailable, closes every connection, removes the socket file. */
  close(): Promise<void>;
  /** For the daemon's status and for tests of what is released. */
  readonly open: { readonly connections: number; readonly streams: number };
}

/**
 * The Workload API over the given trust domain.
 *
 * Who calls is the kernel's word at accept, read before a byte of the request (D11), and checked again before every answer.
 * There is no keepalive: a Unix socket closes with its process, and a process that is stopped (Ctrl-Z, a debugger) keeps its streams.
 */
export function createWorkloadApi(dependencies: WorkloadApiDependencies): WorkloadApi {
  const { attestor, registry, bundles, jwtBundles, audit, clock, trustDomain, observer } = dependencies;
  const limits = { ...defaultLimits, ...dependencies.limits };
  const streams = createOpenStreams();
  const connections = createConnections(attestor, clock, { firstCallMs: limits.firstCallMs, retireMs: RETIRE_MS });
  const authorization = createAuthorization({ connections, registry, audit, observer });

  const grpc = new Server(grpcOptions(limits));
  surviveGoneStreams(grpc);
  const parts = { ...dependencies, authorization, streams, trustDomains: () => jwtBundles.trustDomains };
  grpc.addService(SpiffeWorkloadAPIService, workloadService(parts));
  grpc.addService(SecretDiscoveryServiceService, secretDiscoveryService(parts));
  grpc.addService(
    HealthService,
    healthService({
      connections,
      ready: () => bundles.x509Bundle(trustDomain) !== undefined && jwtBundles.jwtBundle(trustDomain) !== undefined,
      onReadiness: (listener) => bundles.onBundleChange(listener),
      streams,
    }),
  );
  for (const reflection of [ServerReflectionService, ServerReflectionV1AlphaService]) {
    grpc.addService(reflection, { serverReflectionInfo: serverReflectionInfo(connections) });
  }
  const served = createGrpcConnections(grpc, limits.streamsPerConnection);

  const server = createServer((socket) => {
    connections.accept(socket);
    served.serve(socket);
  });
  server.maxConnections = limits.connections;

  return {
    listen: (path, mode = 0o666) => listenOnUnixSocket(server, path, mode),
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      streams.close("agentid is stopping");
      served.drain(RETIRE_MS);
      const cancel = clock.after(2 * RETIRE_MS, () => connections.destroy());
      await connections.allClosed();
      cancel();
      served.destroy();
      grpc.forceShutdown();
      await closed;
    },
    open: {
      get connections() {
        return connections.size;
      },
      get streams() {
        return streams.size;
      },
    },
  };
}

function grpcOptions(limits: WorkloadApiLimits): ServerOptions {
  return {
    interceptors: [requireSecurityHeader],
    "grpc.max_receive_message_length": limits.requestBytes,
    "grpc.max_concurrent_streams": limits.streamsPerConnection,
    "grpc.max_connection_idle_ms": limits.idleMs,
    "grpc.enable_channelz": 0,
  };
}

type ServiceDependencies = Parameters<typeof fetchX509Svid>[0] &
  Parameters<typeof fetchJwtSvid>[0] &
  Parameters<typeof fetchWitSvid>[0] & { readonly streams: OpenStreams };

function workloadService(dependencies: ServiceDependencies): SpiffeWorkloadAPIServer {
  return {
    fetchX509Svid: fetchX509Svid(dependencies),
    fetchX509Bundles: fetchX509Bundles(dependencies),
    fetchJwtsvid: fetchJwtSvid(dependencies),
    fetchJwtBundles: fetchJwtBundles(dependencies),
    validateJwtsvid: validateJwtSvid(dependencies),
    fetchWitsvid: fetchWitSvid(dependencies),
    fetchWitBundles: fetchWitBundles(dependencies),
  };
}
