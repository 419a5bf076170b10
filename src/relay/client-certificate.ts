import type { Peer } from "../http/mutual-tls.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";

/** The chain of a caller from elsewhere may be long; more than this is left out of the headers, never cut. */
const MAX_CHAIN_CHARACTERS = 16_384;

/**
 * What `service` is told of the verified certificate of a caller. What callers sent under these names is gone (`headers.ts`), so each has one value:
 * Envoy's `X-Forwarded-Client-Cert` as after SANITIZE_SET, and RFC 9440 `Client-Cert` with, where there are certificates between it and the
 * trust anchor, `Client-Cert-Chain`. A flat list of names and values.
 */
export function clientCertificateHeaders(peer: Peer, service: SpiffeId): readonly string[] {
  const [leaf, ...others] = peer.chain.map((der) => `:${der.toString("base64")}:`);
  const chain = others.join(", ");
  return [
    ...["X-Forwarded-Client-Cert", `By=${service};Hash=${peer.certificateSha256};URI=${peer.id}`],
    ...["Client-Cert", leaf ?? ""],
    ...(others.length > 0 && chain.length <= MAX_CHAIN_CHARACTERS ? ["Client-Cert-Chain", chain] : []),
  ];
}
