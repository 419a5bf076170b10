import type { X509Certificate } from "node:crypto";
import type { DetailedPeerCertificate, TLSSocket } from "node:tls";
import { MAX_CHAIN_LENGTH } from "./x509-svid.js";

/**
 * In Node 22 `getPeerX509Certificate` takes what comes after the leaf out of the connection: whoever asks later sees a leaf alone, or nothing. In 26 it leaves
 * it where it is, and takes a third of the time that describing each certificate in words takes.
 */
const READS_ARE_HARMLESS = Number.parseInt(process.versions.node, 10) >= 26;

/**
 * The certificates that the peer of a TLS connection presented, DER, leaf first, each followed by the one that issued it as far as their names say;
 * none if it presented none. What else it presented is left out: services are told of this chain, and nobody has looked at the rest. Signatures are
 * `verifyX509Svid`'s business.
 */
export function presentedChain(socket: TLSSocket): readonly Buffer[] {
  return READS_ARE_HARMLESS ? chainOfCertificates(socket) : chainOfDescriptions(socket);
}

function chainOfCertificates(socket: TLSSocket): readonly Buffer[] {
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

function chainOfDescriptions(socket: TLSSocket): readonly Buffer[] {
  const chain: Buffer[] = [];
  let certificate: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true);
  // The object of an absent certificate is empty; a self-signed one is its own issuer.
  while (certificate?.raw !== undefined && !chain.some((seen) => seen.equals(certificate?.raw ?? seen))) {
    chain.push(certificate.raw);
    certificate = certificate.issuerCertificate;
  }
  return chain;
}
