import { parseCertificate, splitX509Chain } from "../spiffe/x509-certificate.js";
import type { X509SVID } from "../workload-api/generated/workload.js";
import { whyNot } from "./check.js";

/** What is wrong with a chain of DER certificates, leaf first, each issued by the next; undefined for a good one. */
export function chainProblem({ spiffeId, x509Svid }: X509SVID): string | undefined {
  if (x509Svid.subarray(0, 10).toString("latin1") === "-----BEGIN") return `the certificates of ${spiffeId} are PEM`;
  const why = whyNot(() => {
    const chain = splitX509Chain(x509Svid).map((der) => parseCertificate(der));
    const unlinked = chain.findIndex(({ issuer }, index) => {
      const next = chain[index + 1];
      return next !== undefined && !next.subject.equals(issuer);
    });
    if (unlinked !== -1) throw new Error(`certificate ${unlinked + 2} has not issued the one before it`);
  });
  return why && `${spiffeId}: ${why}`;
}
