import type { X509Certificate } from "node:crypto";
import { verifyPath } from "./certificate-path.js";
import { keepCertificate, readCertificate } from "./known-certificates.js";
import { SpiffeId, SpiffeIdError, type TrustDomain } from "./spiffe-id.js";
import { type ParsedCertificate, parseCertificate } from "./x509-certificate.js";
import { X509SvidError } from "./x509-svid-error.js";

export { parseX509Chain } from "./x509-certificate.js";
export type { X509SvidErrorCode } from "./x509-svid-error.js";

/** A peer that has proved nothing but whose chain is good: TLS proves that it holds the leaf's key. */
export interface VerifiedX509Svid {
  readonly id: SpiffeId;
  readonly leaf: X509Certificate;
  /** The earliest end of any certificate on the path, root included: nothing that rests on this may outlive it. */
  readonly notAfter: Date;
}

/** DER roots of one trust domain, or undefined if it is not known. */
export type X509Authorities = (trustDomain: TrustDomain) => readonly Buffer[] | undefined;

const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
/** Leaf and nine intermediates: more than any real chain, and a bound on the work a peer can ask for. */
export const MAX_CHAIN_LENGTH = 10;

/**
 * Verifies a presented chain (leaf first) by X509-SVID §5 at `now`: the leaf's own rules, then an RFC 5280 path to an authority
 * of the leaf's trust domain and of no other (XS-9, XS-10, D12). Throws X509SvidError.
 */
export function verifyX509Svid(
  chain: readonly (Buffer | X509Certificate)[],
  authoritiesOf: X509Authorities,
  now: Date,
): VerifiedX509Svid {
  if (chain.length > MAX_CHAIN_LENGTH) {
    throw new X509SvidError("x509-svid-chain-too-long", `more than ${MAX_CHAIN_LENGTH} certificates were presented`);
  }
  const [leaf, ...intermediates] = chain.map((one) => readCertificate(one));
  if (leaf === undefined) throw new X509SvidError("x509-svid-chain-empty", "no certificate was presented");
  const id = checkLeaf(leaf);
  const authorities = authoritiesOf(id.trustDomain);
  // An empty bundle means that everything was revoked: Trust Domain and Bundle §4.
  if (authorities === undefined || authorities.length === 0) {
    throw new X509SvidError("x509-svid-trust-domain-unknown", `no trust bundle for ${id.trustDomain}`);
  }
  const path = verifyPath(leaf, intermediates, authorities.map(parseAuthority), now.getTime());
  for (const certificate of [leaf, ...intermediates]) keepCertificate(certificate);
  return { id, leaf: leaf.x509, notAfter: new Date(Math.min(...path.map((certificate) => certificate.notAfter))) };
}

/** The leaf's own rules, X509-SVID §2–4. */
function checkLeaf(leaf: ParsedCertificate): SpiffeId {
  const id = idOf(leaf);
  // §3.1: "An X.509 SVID … leaf … MUST have a non-root path component."
  if (id.path === "") throw new X509SvidError("x509-svid-path-missing", `${id} names a trust domain, not a workload`);
  // §5.2: "… a leaf certificate … MUST have the cA flag set to false."
  if (leaf.basicConstraints?.cA === true)
    throw new X509SvidError("x509-svid-leaf-is-ca", `${id} presents a signing certificate`);
  checkLeafKeyUsage(leaf, id);
  checkExtendedKeyUsage(leaf, id.toString());
  return id;
}

/** §4.4: "When included, fields id-kp-serverAuth and id-kp-clientAuth MUST be set." Throws X509SvidError. */
export function checkExtendedKeyUsage({ extendedKeyUsage: usages }: ParsedCertificate, whose: string): void {
  if (usages === undefined || (usages.includes(SERVER_AUTH) && usages.includes(CLIENT_AUTH))) return;
  throw new X509SvidError(
    "x509-svid-extended-key-usage",
    `the extended key usage of ${whose} lacks serverAuth or clientAuth`,
  );
}

/** §2: "An X.509 SVID MUST contain exactly one URI SAN." Throws X509SvidError. */
export function idOf(leaf: ParsedCertificate): SpiffeId {
  const [uri, another] = leaf.uris;
  if (uri === undefined) throw new X509SvidError("x509-svid-uri-missing", "the certificate holds no SPIFFE ID");
  if (another !== undefined) throw new X509SvidError("x509-svid-uri-several", "the certificate holds several URIs");
  try {
    return SpiffeId.parse(uri);
  } catch (cause) {
    if (!(cause instanceof SpiffeIdError)) throw cause;
    throw new X509SvidError("x509-svid-uri-invalid", cause.message, { cause });
  }
}

/** §4.3: present and critical, digitalSignature set, keyCertSign and cRLSign not set. */
function checkLeafKeyUsage({ keyUsage }: ParsedCertificate, id: SpiffeId): void {
  if (keyUsage === undefined)
    throw new X509SvidError("x509-svid-key-usage-missing", `the certificate of ${id} has no key usage`);
  if (!keyUsage.critical) {
    throw new X509SvidError("x509-svid-key-usage-not-critical", `the key usage of ${id} is not critical`);
  }
  if (keyUsage.keyCertSign) {
    throw new X509SvidError("x509-svid-leaf-signs-certificates", `the key usage of ${id} includes keyCertSign`);
  }
  if (keyUsage.cRLSign) throw new X509SvidError("x509-svid-leaf-signs-crls", `the key usage of ${id} includes cRLSign`);
  if (!keyUsage.digitalSignature) {
    throw new X509SvidError("x509-svid-digital-signature-missing", `the key usage of ${id} lacks digitalSignature`);
  }
}

/** Parsing depends on the bytes alone, so it may be kept as long as the bundle keeps these very bytes. */
const parsedAuthorities = new WeakMap<Buffer, ParsedCertificate>();

function parseAuthority(der: Buffer): ParsedCertificate {
  const known = parsedAuthorities.get(der);
  if (known !== undefined) return known;
  const parsed = parseCertificate(der);
  parsedAuthorities.set(der, parsed);
  return parsed;
}
