import { CodedError } from "../coded-error.js";
import type { X509SvidSource } from "../identity/svid-source.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import type { CallerConnection, CallerConnections } from "./caller-connections.js";
import type { MutualTlsTarget } from "./caller-tls.js";
import { createSessionPool, type SessionPool } from "./session-pool.js";

/**
 * HTTP/2 connections with a caller's SVID, a pool for each caller identity, chain of launches and target: a connection never carries two. When an SVID is
 * replaced its pool is retired. What they run on are `connections`: those of identities that are no more are closed there.
 */
export interface CallerSessions {
  /** Throws CodedError `identity-unknown` or `not-ready` once a connection is opened. */
  poolFor(caller: SpiffeId, launchedBy: readonly string[], target: MutualTlsTarget): SessionPool;
  /** Lets the pools towards `target` finish what runs on them. */
  retireTarget(target: MutualTlsTarget): void;
}

export function createCallerSessions(parts: {
  readonly svids: X509SvidSource;
  readonly connections: CallerConnections;
}): CallerSessions {
  const pools = new Map<string, { readonly pool: SessionPool; readonly forgetRotation: () => void }>();

  function retire(key: string): void {
    const entry = pools.get(key);
    pools.delete(key);
    entry?.forgetRotation();
    entry?.pool.retire();
  }

  return {
    poolFor(caller, launchedBy, target) {
      const key = [caller, ...launchedBy, suffixOf(target)].join(" ");
      const known = pools.get(key);
      if (known !== undefined) return known.pool;
      const open = async () => speakingHttp2(await parts.connections.open(caller, launchedBy, target, "h2"));
      const pool = createSessionPool(`https://${target.expected.name.replaceAll("/", "-")}`, open);
      pools.set(key, { pool, forgetRotation: parts.svids.onRotation(caller, () => retire(key)) });
      return pool;
    },
    retireTarget(target) {
      for (const key of [...pools.keys()]) if (key.endsWith(` ${suffixOf(target)}`)) retire(key);
    },
  };
}

function speakingHttp2({ socket }: CallerConnection) {
  if (socket.alpnProtocol === "h2") return socket;
  socket.destroy();
  throw new CodedError("server-unexpected", "the server does not speak HTTP/2");
}

function suffixOf(target: MutualTlsTarget): string {
  return `${target.host}:${target.port} ${target.expected}`;
}
