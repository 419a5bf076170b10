import { constants, hash } from "node:crypto";
import { createSecureContext, type SecureContext, type TLSSocket } from "node:tls";
import { codeOf, messageOf } from "../coded-error.js";
import type { X509BundleSource, X509Svid } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import { launchChainOf } from "../spiffe/launch-chain.js";
import { encodePem } from "../spiffe/pem.js";
import { presentedChain } from "../spiffe/presented-chain.js";
import type { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";
import { verifyX509Svid } from "../spiffe/x509-svid.js";

/**
 * What every TLS end of the relay is made of. TLS 1.3 only; no session is ever resumed (D12): with SSL_OP_NO_TICKET and without a
 * session listener the server has nowhere to resume from. `ca` is empty on purpose: Node verifies nothing, `verifyPeer` does, against the
 * bundle of the peer's own trust domain.
 */
export function secureContextOptions(svid: X509Svid) {
  return {
    cert: svid.certificates.map((der) => encodePem("CERTIFICATE", der)).join(""),
    key: encodePem("PRIVATE KEY", svid.privateKeyPkcs8),
    ca: [] as string[],
    minVersion: "TLSv1.3",
    secureOptions: constants.SSL_OP_NO_TICKET,
  } as const;
}

export function secureContextOf(svid: X509Svid): SecureContext {
  return createSecureContext(secureContextOptions(svid));
}

/** Who is at the other end of a TLS connection, verified. */
export interface Peer {
  readonly id: SpiffeId;
  readonly notAfter: Date;
  /** Whom the certificate names as the agents that launched its holder, nearest first. */
  readonly launchedBy: readonly string[];
  /** Lower-case hex SHA-256 of the leaf's DER. */
  readonly certificateSha256: string;
  /** The peer's certificates, leaf first, to verify again when trust changes. */
  readonly chain: readonly Buffer[];
}

/** The peer of a connection could not be verified; `reason` says why, for people. */
export interface Unverified {
  readonly unverified: true;
  readonly code: string;
  readonly reason: string;
}

/**
 * Verifies the certificate chain that the peer presented, once the handshake is over and before anything it sent is read.
 * X509-SVID §5: path validation against the bundle of the leaf's own trust domain, the leaf rules, then what is revoked. Never throws.
 */
export function verifyPeer(socket: TLSSocket, bundles: X509BundleSource, clock: Clock): Peer | Unverified {
  // A resumed session carries no chain and survives the removal of its authority. It cannot happen here; if it does, nothing passes.
  if (socket.isSessionReused()) return unverified("session-resumed", "a resumed TLS session is not accepted");
  const chain = presentedChain(socket);
  if (chain.length === 0) return unverified("certificate-missing", "no client certificate was presented");
  return verifyChain(chain, bundles, new Date(clock.now()));
}

/** True if `peer` would still be accepted had it not expired: its authorities are still trusted. */
export function stillTrusted(peer: Peer, bundles: X509BundleSource, clock: Clock): boolean {
  const then = new Date(Math.min(clock.now(), peer.notAfter.getTime() - 1));
  return !("unverified" in verifyChain(peer.chain, bundles, then));
}

function verifyChain(chain: readonly Buffer[], bundles: X509BundleSource, now: Date): Peer | Unverified {
  try {
    const authoritiesOf = (trustDomain: TrustDomain) => bundles.x509Bundle(trustDomain)?.authorities;
    const { id, notAfter, leaf } = verifyX509Svid(chain, authoritiesOf, now);
    const refusal = bundles.refusalOf(id, chain);
    if (refusal !== undefined) return unverified("svid-revoked", refusal);
    const certificateSha256 = hash("sha256", chain[0] ?? "");
    return { id, notAfter, launchedBy: launchChainOf(leaf), certificateSha256, chain };
  } catch (error) {
    return unverified(codeOf(error), messageOf(error));
  }
}

function unverified(code: string, reason: string): Unverified {
  return { unverified: true, code, reason };
}
