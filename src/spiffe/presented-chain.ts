import type { DetailedPeerCertificate, TLSSocket } from "node:tls";

/** The certificates that the peer of a TLS connection presented, DER, leaf first; none if it presented none. */
export function presentedChain(socket: TLSSocket): readonly Buffer[] {
  const chain: Buffer[] = [];
  let certificate: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true);
  // The object of an absent certificate is empty; a self-signed one is its own issuer.
  while (certificate?.raw !== undefined && !chain.some((seen) => seen.equals(certificate?.raw ?? seen))) {
    chain.push(certificate.raw);
    certificate = certificate.issuerCertificate;
  }
  return chain;
}
