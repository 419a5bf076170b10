import type { KeyObject } from "node:crypto";
import type { ParsedCertificate } from "./x509-certificate.js";
import { X509SvidError, type X509SvidErrorCode } from "./x509-svid-error.js";

/** ecdsa-with-SHA256/384/512, RSA PKCS#1 v1.5 with SHA-256/384/512, RSASSA-PSS, Ed25519. SHA-1 and MD5 can be forged. */
const SIGNATURE_ALGORITHMS: ReadonlySet<string> = new Set([
  "1.2.840.10045.4.3.2",
  "1.2.840.10045.4.3.3",
  "1.2.840.10045.4.3.4",
  "1.2.840.113549.1.1.11",
  "1.2.840.113549.1.1.12",
  "1.2.840.113549.1.1.13",
  "1.2.840.113549.1.1.10",
  "1.3.101.112",
]);
/** A presented chain of look-alike names could otherwise ask for a signature check for each of its permutations. */
const MAX_SIGNATURE_CHECKS = 40;

/** How far a failed attempt came: what is reported is the failure of the attempt that came furthest. */
interface Failure {
  readonly depth: number;
  readonly error: X509SvidError;
}

/**
 * A path from `leaf` over presented `intermediates` to one of `authorities`, leaf first, root last: RFC 5280 §6.1, without policies,
 * name constraints (refused) and revocation lists. `now` in ms. Throws X509SvidError.
 */
export function verifyPath(
  leaf: ParsedCertificate,
  intermediates: readonly ParsedCertificate[],
  authorities: readonly ParsedCertificate[],
  now: number,
): readonly ParsedCertificate[] {
  let signatureChecks = 0;
  let furthest: Failure | undefined;

  function fail(depth: number, code: X509SvidErrorCode, message: string): undefined {
    if (furthest === undefined || depth >= furthest.depth)
      furthest = { depth, error: new X509SvidError(code, message) };
    return undefined;
  }

  /** True if `certificate`, at `path.length` steps from the leaf, may stand there, apart from its signature. */
  function mayStand(certificate: ParsedCertificate, depth: number): true | undefined {
    const { keyUsage, basicConstraints, unprocessedCritical } = certificate;
    if (now < certificate.notBefore) return fail(depth, "x509-svid-not-yet-valid", "a certificate is not valid yet");
    if (now > certificate.notAfter) return fail(depth, "x509-svid-expired", "a certificate has expired");
    if (certificate.hasNameConstraints)
      return fail(depth, "x509-svid-name-constraints", "name constraints are not supported");
    if (unprocessedCritical.length > 0) {
      return fail(
        depth,
        "x509-svid-critical-extension",
        `unknown critical extension ${unprocessedCritical.join(", ")}`,
      );
    }
    if (!SIGNATURE_ALGORITHMS.has(certificate.signatureAlgorithm)) {
      return fail(
        depth,
        "x509-svid-signature-algorithm",
        `signature algorithm ${certificate.signatureAlgorithm} is refused`,
      );
    }
    if (depth === 0) return true;
    if (basicConstraints?.cA !== true)
      return fail(depth, "x509-svid-issuer-not-ca", "an issuer is not a certificate authority");
    if (keyUsage !== undefined && !keyUsage.keyCertSign) {
      return fail(depth, "x509-svid-issuer-key-usage", "an issuer may not sign certificates");
    }
    // §4.2.1.9: how many intermediates may follow it, the leaf not counted.
    if (basicConstraints.pathLength !== undefined && depth - 1 > basicConstraints.pathLength) {
      return fail(depth, "x509-svid-path-length", "the chain is longer than an authority allows");
    }
    return true;
  }

  function signed(subject: ParsedCertificate, issuer: ParsedCertificate, depth: number): true | undefined {
    if (++signatureChecks > MAX_SIGNATURE_CHECKS) {
      throw new X509SvidError("x509-svid-chain-too-long", "the presented certificates form too many possible chains");
    }
    const key = issuer.x509.publicKey;
    if (!strongEnough(key)) return fail(depth, "x509-svid-signature-algorithm", "an issuer's key is too weak");
    if (!hasSigned(issuer, subject)) return fail(depth, "x509-svid-signature", "a signature is wrong");
    return true;
  }

  function extend(path: readonly ParsedCertificate[]): readonly ParsedCertificate[] | undefined {
    const subject = path[path.length - 1];
    if (subject === undefined) return undefined;
    const depth = path.length;
    const issues = (candidate: ParsedCertificate) =>
      candidate.subject.equals(subject.issuer) && !path.includes(candidate);
    for (const authority of authorities.filter(issues)) {
      if (mayStand(authority, depth) && signed(subject, authority, depth)) return [...path, authority];
    }
    for (const intermediate of intermediates.filter(issues)) {
      if (!mayStand(intermediate, depth) || !signed(subject, intermediate, depth)) continue;
      const complete = extend([...path, intermediate]);
      if (complete !== undefined) return complete;
    }
    return fail(depth - 0.5, "x509-svid-issuer-unknown", "no authority of its trust domain has issued the certificate");
  }

  const path = mayStand(leaf, 0) && extend([leaf]);
  if (path !== undefined) return path;
  throw furthest?.error ?? new X509SvidError("x509-svid-issuer-unknown", "the certificate leads to no authority");
}

/** Whose key was found to have signed which certificates: their bytes say so at any time. */
const signatures = new WeakMap<ParsedCertificate, WeakSet<ParsedCertificate>>();

function hasSigned(issuer: ParsedCertificate, subject: ParsedCertificate): boolean {
  let signed = signatures.get(issuer);
  if (signed?.has(subject)) return true;
  if (!subject.x509.verify(issuer.x509.publicKey)) return false;
  if (signed === undefined) {
    signed = new WeakSet();
    signatures.set(issuer, signed);
  }
  signed.add(subject);
  return true;
}

function strongEnough(key: KeyObject): boolean {
  if (key.asymmetricKeyType !== "rsa" && key.asymmetricKeyType !== "rsa-pss") return true;
  return (key.asymmetricKeyDetails?.modulusLength ?? 0) >= 2048;
}
