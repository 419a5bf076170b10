import { BundleError } from "./bundle-error.js";
import { type Jwk, type JwkSet, parseJwtBundle } from "./jwt-bundle.js";
import { decodePem } from "./pem.js";
import { parseSpiffeBundle } from "./spiffe-bundle.js";
import type { TrustDomain } from "./spiffe-id.js";
import { parseWitBundle } from "./wit-bundle.js";
import { saysItIsWitSvid } from "./wit-svid-rules.js";
import { parseX509Bundle } from "./x509-bundle.js";
import { parseCertificate, splitX509Chain } from "./x509-certificate.js";
import { X509SvidError } from "./x509-svid-error.js";

/** What a file that somebody was handed holds. */
export type SvidFile =
  | { readonly kind: "x509" /** DER, leaf first. */; readonly chain: readonly Buffer[]; readonly holdsKey: boolean }
  | { readonly kind: "jwt" | "wit"; readonly token: string };

/** Reads PEM or DER certificates, or a token. Throws X509SvidError `x509-svid-malformed`, `x509-svid-chain-empty`; of a token only its
 * type is looked at. */
export function parseSvidFile(bytes: Buffer): SvidFile {
  // A DER SEQUENCE begins with 0x30, which as text would be the digit 0.
  if (bytes[0] === 0x30 && bytes[1] !== undefined && bytes[1] >= 0x80) {
    return { kind: "x509", chain: splitX509Chain(bytes), holdsKey: false };
  }
  const text = bytes.toString("utf8").trim();
  if (!text.includes("-----BEGIN ")) {
    const token = text.replace(/^Bearer\s+/i, "");
    return { kind: saysItIsWitSvid(token) ? "wit" : "jwt", token };
  }
  const blocks = decodePem(text);
  const chain = blocks.filter(({ label }) => label === "CERTIFICATE").map(({ der }) => der);
  if (chain.length === 0) throw new X509SvidError("x509-svid-chain-empty", "the file holds no certificate");
  return { kind: "x509", chain, holdsKey: blocks.some(({ label }) => label.endsWith("PRIVATE KEY")) };
}

/** The trust that a file gives. */
export interface BundleFile {
  readonly x509Authorities: readonly Buffer[];
  readonly jwtKeys: readonly Jwk[];
  readonly witKeys: readonly Jwk[];
}

/** Reads PEM or DER roots, a SPIFFE bundle, or a plain JWK Set. Throws BundleError. */
export function parseBundleFile(bytes: Buffer): BundleFile {
  if (bytes[0] === 0x30) return { x509Authorities: parseX509Bundle(bytes), jwtKeys: [], witKeys: [] };
  const text = bytes.toString("utf8");
  if (text.includes("-----BEGIN ")) {
    const roots = decodePem(text).filter(({ label }) => label === "CERTIFICATE");
    if (roots.length === 0) throw new BundleError("bundle-certificate", "the file holds no certificate");
    return {
      x509Authorities: parseX509Bundle(Buffer.concat(roots.map(({ der }) => der))),
      jwtKeys: [],
      witKeys: [],
    };
  }
  const { x509Authorities, jwtKeys } = parseSpiffeBundle(text);
  // The Workload API's own JWK Sets need not say what their keys are for.
  return {
    x509Authorities,
    jwtKeys: jwtKeys.length > 0 ? jwtKeys : parseJwtBundle(text).keys,
    witKeys: parseWitBundle(text).keys,
  };
}

/** The file's authorities for `trustDomain`: a bundle file does not name its trust domain, but an authority with an ID speaks for no other. */
export function authoritiesIn(file: BundleFile, trustDomain: TrustDomain): readonly Buffer[] {
  return file.x509Authorities.filter((der) => {
    const ids = parseCertificate(der).uris.filter((uri) => uri.startsWith("spiffe://"));
    return ids.length === 0 || ids.includes(trustDomain.id.toString());
  });
}

/** The keys as a set, or undefined if the file has none. */
export function keySetOf(keys: readonly Jwk[]): JwkSet | undefined {
  return keys.length === 0 ? undefined : { keys };
}
