import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { MAX_CHAIN_LENGTH } from "./x509-svid.js";

/**
 * The certificates that the peer of a TLS connection presented, DER, leaf first, each followed by the one that issued it as far as their names say;
 * none if it presented none. What else it presented is left out: services are told of this chain, and nobody has looked at the rest. Signatures are
 * `verifyX509Svid`'s business. (`getPeerCertificate(true)` gives the same, and takes three times as long to describe each certificate in words.)
 */
export function presentedChain(socket: TLSSocket): readonly Buffer[] {
  let last = socket.getPeerX509Certificate();
  if (last === undefined) return [];
  const others = presentedWith(last);
  const chain = [last.raw];
  for (;;) {
    const subject: X509Certificate = last;
    const issuer = others.find((other) => subject.checkIssued(other));
    // A self-signed one, presented twice, is its own issuer.
    if (issuer === undefined || chain.some((seen) => seen.equals(issuer.raw))) return chain;
    others.splice(others.indexOf(issuer), 1);
    chain.push(issuer.raw);
    last = issuer;
  }
}

/** What came after the leaf, in the order in which it came; no more than makes a chain too long to be verified. */
function presentedWith(leaf: X509Certificate): X509Certificate[] {
  const others: X509Certificate[] = [];
  // In TLS the "issuer" is the next that was presented, whoever issued it.
  for (let next = leaf.issuerCertificate; next !== undefined; next = next.issuerCertificate) {
    if (others.length === MAX_CHAIN_LENGTH) break;
    others.push(next);
  }
  return others;
}
