import type { TLSSocket } from "node:tls";
import { CodedError, codeOf, messageOf } from "../../coded-error.js";
import { presentedChain } from "../../spiffe/presented-chain.js";
import type { SpiffeId } from "../../spiffe/spiffe-id.js";
import { verifyX509Svid } from "../../spiffe/x509-svid.js";
import type { Authorizer } from "./authorize.js";
import type { TlsIdentity } from "./x509-source.js";

/** Who is at the other end of a TLS connection, verified and authorized. */
export interface Peer {
  readonly id: SpiffeId;
  /** The earliest end of any certificate on the path to the trust domain's authority. */
  readonly notAfter: Date;
  /** DER, leaf first, as presented. */
  readonly certificates: readonly Buffer[];
}

/** A peer was refused before a byte of it was used. `cause` holds the X509SvidError that says which rule it breaks. */
export class PeerError extends CodedError<
  "peer-certificate-missing" | "peer-unverified" | "peer-unauthorized" | "peer-session-resumed"
> {
  override readonly name = "PeerError";
}

/**
 * Verifies who presented the certificates of a finished handshake: X509-SVID §5 against the bundle of the leaf's own trust domain and no
 * other, then `authorize`. Throws PeerError.
 */
export function verifyPeer(socket: TLSSocket, identity: TlsIdentity, authorize: Authorizer, now: Date): Peer {
  // A resumed session carries no chain and would survive the removal of its authority; nothing here resumes any.
  if (socket.isSessionReused()) throw new PeerError("peer-session-resumed", "a resumed TLS session is not accepted");
  const certificates = presentedChain(socket);
  if (certificates.length === 0) throw new PeerError("peer-certificate-missing", "the peer presented no certificate");
  const peer = verifyChain(certificates, identity, now);
  if (!authorize.allows(peer.id)) {
    throw new PeerError("peer-unauthorized", `the peer is ${peer.id}, wanted is ${authorize.wanted}`);
  }
  return peer;
}

/** True if `peer` would be let in again had it not expired: its authorities are still trusted. */
export function isStillTrusted({ certificates, notAfter }: Peer, identity: TlsIdentity, now: Date): boolean {
  const then = new Date(Math.min(now.getTime(), notAfter.getTime() - 1));
  try {
    verifyChain(certificates, identity, then);
    return true;
  } catch (thrown) {
    if (thrown instanceof PeerError) return false;
    throw thrown;
  }
}

function verifyChain(certificates: readonly Buffer[], identity: TlsIdentity, now: Date): Peer {
  try {
    const { id, notAfter } = verifyX509Svid(certificates, (trustDomain) => identity.bundleFor(trustDomain), now);
    return { id, notAfter, certificates };
  } catch (cause) {
    if (!(cause instanceof CodedError)) throw cause;
    throw new PeerError(
      "peer-unverified",
      `the peer's certificate is refused: ${messageOf(cause)} (${codeOf(cause)})`,
      {
        cause,
      },
    );
  }
}
