import type { Duplex } from "node:stream";
import { createServer, type TLSSocket } from "node:tls";
import type { HostPort } from "../config/config.js";
import { endFailedHandshakes } from "../http/failed-handshakes.js";
import { loopbackNames } from "../http/host-check.js";
import { serveHttp } from "../http/http-listener.js";
import { listenOnLoopback } from "../http/listen.js";
import { type Peer, secureContextOptions, stillTrusted, type Unverified, verifyPeer } from "../http/mutual-tls.js";
import { boundHandshakes, boundStrangers, MAX_HANDSHAKES, MAX_STRANGERS } from "../http/pending-handshakes.js";
import { Refusal } from "../http/refusal.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import { clientAmong } from "./clients.js";
import type { AuthzenParts } from "./parts.js";
import type { Answerer, Door } from "./server.js";

export interface TlsDoor {
  readonly port: number;
  close(graceMs: number): Promise<void>;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;

/**
 * Answers on a loopback address with the SVID of `id`, TLS 1.3 only, no session resumed (D12). A client certificate is asked for; without a good one the
 * metadata can be read and every question is answered 401. Throws CodedError `port-in-use`, `cannot-listen`, `not-ready`.
 */
export async function openTlsDoor(
  parts: AuthzenParts,
  answer: Answerer,
  { listen, id }: { readonly listen: HostPort; readonly id: SpiffeId },
): Promise<TlsDoor> {
  const peers = new Map<Duplex, Peer | Unverified>();
  let door: Door | undefined;
  const server = createServer({
    ...secureContextOptions(parts.svids.x509Svid(id)),
    requestCert: true,
    // Node verifies nothing: `verifyPeer` does, before a byte of a request is read.
    rejectUnauthorized: false,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    ALPNProtocols: ["http/1.1"],
  });
  const listener = serveHttp(server, {
    refused: () => undefined,
    request(request, response) {
      if (door !== undefined) answer(door, request, response);
    },
  });
  endFailedHandshakes(server, () => undefined);
  const settled = boundHandshakes(server, ({ remoteAddress, remotePort, localAddress, localPort }) =>
    parts.attestor.userOfTcpConnection?.({
      client: { address: remoteAddress ?? "", port: remotePort ?? 0 },
      server: { address: localAddress ?? "", port: localPort ?? 0 },
    }),
  );
  const strangers = boundStrangers();
  // Beside the places of those who may ask.
  server.maxConnections += MAX_HANDSHAKES + MAX_STRANGERS;
  const toParser = server.listeners("secureConnection") as ((socket: TLSSocket) => void)[];
  server.removeAllListeners("secureConnection");
  server.on("secureConnection", (socket: TLSSocket) => {
    settled(socket);
    const peer = verifyPeer(socket, parts.bundles, parts.clock);
    if ("unverified" in peer && !strangers.admit(socket)) return;
    peers.set(socket, peer);
    socket.once("close", () => peers.delete(socket));
    for (const each of toParser) each.call(server, socket);
  });
  const forgetRotation = parts.svids.onRotation(id, (svid) => server.setSecureContext(secureContextOptions(svid)));
  const dropDistrusted = () => {
    for (const [socket, peer] of peers) {
      if (!("unverified" in peer) && !stillTrusted(peer, parts.bundles, parts.clock)) socket.destroy();
    }
  };
  const forgetBundles = parts.bundles.onBundleChange(dropDistrusted);
  const forgetRegistry = parts.registry.onChange(dropDistrusted);
  const close = async (graceMs: number) => {
    forgetRotation();
    forgetBundles();
    forgetRegistry();
    await listener.close(graceMs);
  };
  const host = listen.host === "::1" ? "::1" : "127.0.0.1";
  let port: number;
  try {
    port = (await listenOnLoopback(server, host, listen.port, "authzen")) ?? listen.port;
  } catch (thrown) {
    await close(0);
    throw thrown;
  }
  door = {
    names: loopbackNames("https", port),
    scheme: "https",
    challenge: `X509-SVID realm="${parts.trustDomain.name}"`,
    whoAsks: ({ socket }) => identified(peers.get(socket), parts),
    describe: ({ socket }) => ({ caller: callerOf(peers.get(socket)), detail: "", user: undefined }),
  };
  return { port, close };
}

function identified(peer: Peer | Unverified | undefined, parts: AuthzenParts) {
  if (peer === undefined) throw new Refusal("certificate-refused", 401, "the connection was closed");
  if ("unverified" in peer) throw new Refusal("certificate-refused", 401, peer.reason);
  if (peer.notAfter.getTime() <= parts.clock.now()) {
    throw new Refusal("certificate-expired", 401, "the certificate of this connection has expired: connect again");
  }
  const id = peer.id.toString();
  // Names are those of our own trust domain: another one's `agents/gateway` is nobody here.
  const name = peer.id.memberOf(parts.trustDomain) ? peer.id.name : id;
  return clientAmong([name], parts.clients(), () => id, "");
}

function callerOf(peer: Peer | Unverified | undefined): string {
  return peer === undefined || "unverified" in peer ? "(none)" : peer.id.toString();
}
