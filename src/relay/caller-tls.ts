import type { Socket } from "node:net";
import { connect, type SecureContext, type TLSSocket } from "node:tls";
import { CodedError } from "../coded-error.js";
import type { ReadsInto } from "../http/client-connection.js";
import { type Peer, secureContextOf, verifyPeer } from "../http/mutual-tls.js";
import type { X509BundleSource, X509Svid } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";

const HANDSHAKE_TIMEOUT_MS = 10_000;

/** Where a mutual-TLS connection goes, and who alone may answer there. */
export interface MutualTlsTarget {
  readonly host: string;
  readonly port: number;
  readonly expected: SpiffeId;
}

/** One for each SVID, not for each connection: making one parses the key. */
const contexts = new WeakMap<X509Svid, SecureContext>();

export function callerContext(svid: X509Svid): SecureContext {
  const context = contexts.get(svid) ?? secureContextOf(svid);
  contexts.set(svid, context);
  return context;
}

/**
 * Opens mutual TLS to `target`; `connected` gets the connection once its peer is verified to be the one expected, before a byte goes out. A server that
 * speaks ALPN and does not know ours ends the handshake. `over` is an open connection to there, for who must be able to reset it; it ends with this one.
 * `failed` gets CodedError `connect-timeout`, `server-unverified`, `server-unexpected`, or the socket's own error. One of the two is called, once.
 */
export function connectMutualTls(
  parts: { readonly bundles: X509BundleSource; readonly clock: Clock },
  target: MutualTlsTarget,
  using: {
    readonly secureContext: SecureContext;
    readonly alpn: string;
    readonly over?: Socket;
    readonly onread?: ReadsInto;
  },
  connected: (socket: TLSSocket, peer: Peer) => void,
  failed: (error: Error) => void,
): void {
  const { over } = using;
  let settled = false;
  const socket = connect({
    ...(over === undefined ? { host: target.host, port: target.port } : { socket: over }),
    secureContext: using.secureContext,
    ALPNProtocols: [using.alpn],
    // Node verifies nothing: verifyPeer below does, before a byte of a request goes out.
    rejectUnauthorized: false,
    ...(using.onread && { onread: using.onread }),
  });
  const fail = (error: Error) => {
    cancelTimeout();
    socket.destroy();
    over?.destroy();
    if (!settled) failed(error);
    settled = true;
  };
  const closed = () => fail(new CodedError("ECONNRESET", "the connection was closed before its handshake was over"));
  const cancelTimeout = parts.clock.after(HANDSHAKE_TIMEOUT_MS, () =>
    fail(new CodedError("connect-timeout", "the TLS handshake took too long")),
  );
  socket.once("error", fail);
  socket.once("close", closed);
  socket.once("secureConnect", () => {
    const peer = verifyPeer(socket, parts.bundles, parts.clock);
    if ("unverified" in peer) return fail(new CodedError("server-unverified", peer.reason));
    if (!peer.id.equals(target.expected)) {
      return fail(new CodedError("server-unexpected", `the server is ${peer.id}, not ${target.expected}`));
    }
    cancelTimeout();
    settled = true;
    socket.off("error", fail);
    socket.off("close", closed);
    socket.setNoDelay(true);
    connected(socket, peer);
  });
}
