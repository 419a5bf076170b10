import type { TLSSocket } from "node:tls";
import { messageOf } from "../coded-error.js";
import type { NewEvent } from "../control-api/events.js";
import { ClientPool, type Connect } from "../http/client-pool.js";
import { type Peer, stillTrusted } from "../http/mutual-tls.js";
import type { Onward } from "../http/outgoing-call.js";
import type { X509BundleSource, X509Svid, X509SvidSource } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import { callerContext, connectMutualTls, type MutualTlsTarget } from "./caller-tls.js";

const MAX_CONNECTIONS = 512;
const KEEP_ALIVE_MS = 30_000;

/**
 * Keep-alive connections with a caller's SVID, one pool for each caller identity, chain of launches and target: a connection never carries two.
 * When an SVID is replaced its pool is retired: calls that run finish on it, new ones use the new SVID. One that cannot be used leaves the pool in its place, and
 * is shown as a problem: the one before is good until it expires.
 */
export interface CallerPools {
  /** Throws CodedError `identity-unknown` or `not-ready`. */
  dispatcherFor(caller: SpiffeId, launchedBy: readonly string[], target: MutualTlsTarget): Onward;
  /** Closes at once, with what runs on them, the pools of identities for which `isKnown` is false. */
  retainIdentities(isKnown: (id: SpiffeId) => boolean): void;
  /** Lets the pools towards `target` finish what runs on them, and opens no more connections there. */
  retireTarget(target: MutualTlsTarget): void;
  /** Closes at once. */
  destroy(): Promise<void>;
}

interface CallerPool {
  readonly caller: SpiffeId;
  readonly pool: ClientPool;
  readonly forgetRotation: () => void;
  readonly connections: Map<TLSSocket, Peer>;
}

export function createCallerPools(parts: {
  svids: X509SvidSource;
  bundles: X509BundleSource;
  clock: Clock;
  emit: (event: NewEvent) => void;
  answerTimeoutMs: number;
}): CallerPools {
  const current = new Map<string, CallerPool>();
  // Retired pools that still carry a call: revocation must reach them too.
  const all = new Set<CallerPool>();

  const forgetBundles = parts.bundles.onBundleChange(() => {
    for (const { connections } of all) {
      for (const [socket, peer] of connections) if (!stillTrusted(peer, parts.bundles, parts.clock)) socket.destroy();
    }
  });

  function open(key: string, caller: SpiffeId, launchedBy: readonly string[], target: MutualTlsTarget): CallerPool {
    const connections: CallerPool["connections"] = new Map();
    const secureContext = callerContext(parts.svids.x509Svid(caller, launchedBy));
    const connect: Connect = (onread, settled) => {
      const connected = (socket: TLSSocket, peer: Peer) => {
        connections.set(socket, peer);
        socket.once("close", () => connections.delete(socket));
        settled(socket);
      };
      connectMutualTls(parts, target, { secureContext, alpn: "http/1.1", onread }, connected, settled);
    };
    const pool = new ClientPool({
      connect,
      maxConnections: MAX_CONNECTIONS,
      answerTimeoutMs: parts.answerTimeoutMs,
      keepAliveMs: KEEP_ALIVE_MS,
    });
    const forgetRotation = parts.svids.onRotation(caller, () => {
      if (!isUnusable(caller, launchedBy)) retire(key);
    });
    const entry = { caller, pool, forgetRotation, connections };
    current.set(key, entry);
    all.add(entry);
    return entry;
  }

  /** True where there is a next SVID, and it is broken. Who gets none any more is no reason to go on with the last one. */
  function isUnusable(caller: SpiffeId, launchedBy: readonly string[]): boolean {
    const next = nextSvid(caller, launchedBy);
    if (next === undefined) return false;
    try {
      callerContext(next);
      return false;
    } catch (thrown) {
      const message = `${caller.name} calls on with its last certificate: ${messageOf(thrown)}`;
      parts.emit({ event: "problem", severity: "error", code: "certificate-unusable", message });
      return true;
    }
  }

  function nextSvid(caller: SpiffeId, launchedBy: readonly string[]): X509Svid | undefined {
    try {
      return parts.svids.x509Svid(caller, launchedBy);
    } catch {
      // Whoever asks for a connection is told why.
      return undefined;
    }
  }

  function retire(key: string): void {
    const entry = current.get(key);
    if (entry === undefined) return;
    current.delete(key);
    entry.forgetRotation();
    void entry.pool.close().finally(() => all.delete(entry));
  }

  async function end(entry: CallerPool): Promise<void> {
    entry.forgetRotation();
    for (const [key, one] of current) if (one === entry) current.delete(key);
    all.delete(entry);
    await entry.pool.destroy();
  }

  return {
    dispatcherFor(caller, launchedBy, target) {
      const key = [caller, ...launchedBy, suffixOf(target)].join(" ");
      return (current.get(key) ?? open(key, caller, launchedBy, target)).pool;
    },
    retainIdentities(isKnown) {
      for (const entry of all) if (!isKnown(entry.caller)) void end(entry);
    },
    retireTarget(target) {
      for (const key of [...current.keys()]) if (key.endsWith(` ${suffixOf(target)}`)) retire(key);
    },
    async destroy() {
      forgetBundles();
      await Promise.all([...all].map(end));
    },
  };
}

function suffixOf(target: MutualTlsTarget): string {
  return `${target.host}:${target.port} ${target.expected}`;
}
