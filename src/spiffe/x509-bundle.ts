import { BundleError } from "./bundle-error.js";
import type { Jwk } from "./jwt-bundle.js";
import { decodePem, encodePem } from "./pem.js";
import type { TrustDomain } from "./spiffe-id.js";
import { parseCertificate, splitX509Chain } from "./x509-certificate.js";

/** The roots of concatenated DER, as the Workload API carries a bundle (XR-5). Throws BundleError `bundle-certificate`. */
export function parseX509Bundle(der: Buffer): readonly Buffer[] {
  if (der.length === 0) return [];
  try {
    const roots = splitX509Chain(der).map((root) => Buffer.from(root));
    for (const root of roots) parseCertificate(root);
    return roots;
  } catch (cause) {
    throw new BundleError("bundle-certificate", "the bundle holds what is not a DER certificate", { cause });
  }
}

/** Concatenated DER of `authorities`. */
export function serialiseX509Bundle(authorities: readonly Buffer[]): Buffer {
  return Buffer.concat(authorities);
}

/** The roots of a PEM file. Throws BundleError `bundle-certificate` where it holds a block of another kind, what is no certificate, or nothing. */
export function parseX509BundlePem(text: string): readonly Buffer[] {
  const blocks = decodePem(text);
  const other = blocks.find(({ label }) => label !== "CERTIFICATE");
  if (other !== undefined) throw new BundleError("bundle-certificate", `the bundle holds a ${other.label}`);
  if (blocks.length === 0) throw new BundleError("bundle-certificate", "the file holds no certificate");
  return parseX509Bundle(Buffer.concat(blocks.map(({ der }) => der)));
}

/** `authorities` as PEM, in order. */
export function serialiseX509BundlePem(authorities: readonly Buffer[]): string {
  return authorities.map((der) => encodePem("CERTIFICATE", der)).join("");
}

/**
 * Refuses authorities that say themselves that they are of another trust domain than `trustDomain`: a file or an answer that was mixed up.
 * X509-SVID §3.2: a signing certificate SHOULD have a SPIFFE ID, that of its trust domain. One without is anybody's.
 * Throws BundleError `bundle-trust-domain`.
 */
export function requireTrustDomain(authorities: readonly Buffer[], trustDomain: TrustDomain): void {
  for (const der of authorities) {
    const uris = parseCertificate(der).uris.filter((uri) => uri.startsWith("spiffe://"));
    const foreign = uris.find((uri) => uri !== trustDomain.id.toString());
    if (foreign === undefined) continue;
    throw new BundleError(
      "bundle-trust-domain",
      `the bundle holds an authority of ${foreign}, not of ${trustDomain.id}`,
    );
  }
}

/** When the last of `authorities` ends, or undefined where there is none. */
export function lastEndOf(authorities: readonly Buffer[]): Date | undefined {
  if (authorities.length === 0) return undefined;
  return new Date(Math.max(...authorities.map((der) => parseCertificate(der).notAfter)));
}

/** Key types of RFC 7518 and RFC 8037 that a certificate can hold. */
const X509_KEY_TYPES: readonly string[] = ["EC", "RSA", "OKP"];

/** A root as an element of a SPIFFE bundle: `use: x509-svid`, no `kid`, `x5c` with exactly this certificate (XS-11). */
export function x509AuthorityJwk(der: Buffer): Jwk {
  const { x509 } = parseCertificate(der);
  const { kty, crv, x, y, n, e } = x509.publicKey.export({ format: "jwk" });
  const publicMembers = kty === "RSA" ? { n, e } : { crv, x, y };
  return { kty: String(kty), use: "x509-svid", ...publicMembers, x5c: [der.toString("base64")] };
}

/** The root in an element of a SPIFFE bundle, or undefined if its `x5c` is empty or its `kty` unknown; only the first value counts (XS-11). Throws BundleError `bundle-certificate`. */
export function x509AuthorityOf(jwk: Jwk): Buffer | undefined {
  // Trust Domain and Bundle §4.2.1: an element of an unknown key type is ignored.
  if (!X509_KEY_TYPES.includes(jwk.kty)) return undefined;
  const first: unknown = Array.isArray(jwk.x5c) ? jwk.x5c[0] : undefined;
  if (typeof first !== "string" || first === "") return undefined;
  const der = Buffer.from(first, "base64");
  try {
    parseCertificate(der);
  } catch (cause) {
    throw new BundleError("bundle-certificate", "the bundle's x5c holds what is not a DER certificate", { cause });
  }
  return der;
}
