import type { TLSSocket } from "node:tls";
import { type Peer, stillTrusted } from "../http/mutual-tls.js";
import type { X509BundleSource, X509SvidSource } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import { callerContext, connectMutualTls, type MutualTlsTarget } from "./caller-tls.js";

/** A mutual-TLS connection with a caller's SVID, and who is at its other end. */
export interface CallerConnection {
  readonly socket: TLSSocket;
  readonly peer: Peer;
}

/** Connections that are not shared between calls: each belongs to one caller for as long as it is open. */
export interface CallerConnections {
  /** Throws CodedError `identity-unknown` or `not-ready`; rejects as `connectMutualTls` fails. */
  open(
    caller: SpiffeId,
    launchedBy: readonly string[],
    target: MutualTlsTarget,
    alpn: string,
  ): Promise<CallerConnection>;
  /** Closes at once those of identities for which `isKnown` is false. */
  retainIdentities(isKnown: (id: SpiffeId) => boolean): void;
  /** Closes all at once. */
  destroy(): void;
}

export function createCallerConnections(parts: {
  readonly svids: X509SvidSource;
  readonly bundles: X509BundleSource;
  readonly clock: Clock;
}): CallerConnections {
  const open = new Map<TLSSocket, { readonly caller: SpiffeId; readonly peer: Peer }>();

  function closeWhere(isOver: (one: { readonly caller: SpiffeId; readonly peer: Peer }) => boolean): void {
    for (const [socket, one] of open) if (isOver(one)) socket.destroy();
  }

  const forgetBundles = parts.bundles.onBundleChange(() =>
    closeWhere(({ peer }) => !stillTrusted(peer, parts.bundles, parts.clock)),
  );

  return {
    open(caller, launchedBy, target, alpn) {
      const secureContext = callerContext(parts.svids.x509Svid(caller, launchedBy));
      return new Promise((resolve, reject) => {
        const connected = (socket: TLSSocket, peer: Peer) => {
          open.set(socket, { caller, peer });
          socket.once("close", () => open.delete(socket));
          socket.on("error", () => socket.destroy());
          resolve({ socket, peer });
        };
        connectMutualTls(parts, target, { secureContext, alpn }, connected, reject);
      });
    },
    retainIdentities: (isKnown) => closeWhere(({ caller }) => !isKnown(caller)),
    destroy() {
      forgetBundles();
      closeWhere(() => true);
    },
  };
}
