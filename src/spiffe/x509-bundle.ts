import { BundleError } from "./bundle-error.js";
import type { Jwk } from "./jwt-bundle.js";
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

/** A root as an element of a SPIFFE bundle: `use: x509-svid`, no `kid`, `x5c` with exactly this certificate (XS-11). */
export function x509AuthorityJwk(der: Buffer): Jwk {
  const { x509 } = parseCertificate(der);
  const { kty, crv, x, y, n, e } = x509.publicKey.export({ format: "jwk" });
  const publicMembers = kty === "RSA" ? { n, e } : { crv, x, y };
  return { kty: String(kty), use: "x509-svid", ...publicMembers, x5c: [der.toString("base64")] };
}

/** The root in an element of a SPIFFE bundle, or undefined if its `x5c` is empty; only the first value counts (XS-11). Throws BundleError `bundle-certificate`. */
export function x509AuthorityOf(jwk: Jwk): Buffer | undefined {
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
