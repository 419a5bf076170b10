import type { Jwk } from "../spiffe/jwt-bundle.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { parseCertificate } from "../spiffe/x509-certificate.js";
import type { AuthoritySlots } from "./authority-schedule.js";
import { createJwtAuthority, type JwtAuthority, restoreJwtAuthority } from "./jwt-authority.js";
import type { StoredAuthorities, StoredAuthority, StoredOldAuthority } from "./key-store.js";
import { createX509Authority, restoreX509Authority, type X509Authority } from "./x509-authority.js";

/** What verifiers know of an authority. */
export interface KnownAuthority {
  /** DER of the root. */
  readonly x509Certificate: Buffer;
  readonly jwtPublicKey: Jwk;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** An X.509 and a JWT authority that live and are replaced together. */
export interface AuthorityGeneration extends KnownAuthority {
  readonly x509: X509Authority;
  readonly jwt: JwtAuthority;
}

export type GenerationSlots = AuthoritySlots<AuthorityGeneration, KnownAuthority>;

/** A new pair of authorities, valid from `now` (ms) for `lifetimeSeconds`. */
export function newGeneration(trustDomain: TrustDomain, lifetimeSeconds: number, now: number): AuthorityGeneration {
  const x509 = createX509Authority({ trustDomain, lifetimeSeconds, now });
  return generationOf(x509, createJwtAuthority({ trustDomain, notBefore: x509.notBefore, notAfter: x509.notAfter }));
}

function generationOf(x509: X509Authority, jwt: JwtAuthority): AuthorityGeneration {
  const { certificate: x509Certificate, notBefore, notAfter } = x509;
  return { x509, jwt, x509Certificate, jwtPublicKey: jwt.publicJwk, notBefore, notAfter };
}

/** An authority without its private keys. */
export function knownPart({ x509Certificate, jwtPublicKey, notBefore, notAfter }: AuthorityGeneration): KnownAuthority {
  return { x509Certificate, jwtPublicKey, notBefore, notAfter };
}

/** Everything that verifiers must know: who signs, who will, and who signed what is still valid. */
export function bundleOf({ active, prepared, old }: GenerationSlots) {
  const all: readonly KnownAuthority[] = [active, ...(prepared === undefined ? [] : [prepared]), ...old];
  return {
    x509Authorities: all.map((authority) => authority.x509Certificate),
    jwtKeys: all.map((authority) => authority.jwtPublicKey),
  };
}

/** The slots as the key store keeps them. */
export function storedForm({ active, prepared, old }: GenerationSlots): StoredAuthorities {
  return {
    active: storedAuthority(active),
    prepared: prepared === undefined ? undefined : storedAuthority(prepared),
    old: old.map(({ x509Certificate, jwtPublicKey }) => ({
      x509Certificate: x509Certificate.toString("base64"),
      jwtPublicKey,
    })),
  };
}

function storedAuthority({ x509, jwt }: AuthorityGeneration): StoredAuthority {
  return {
    x509Certificate: x509.certificate.toString("base64"),
    x509PrivateKeyPkcs8: x509.privateKeyPkcs8.toString("base64"),
    jwtPrivateKeyPkcs8: jwt.privateKeyPkcs8.toString("base64"),
  };
}

/** The slots that the key store kept. Throws CodedError `authority-key-mismatch` and X509SvidError. */
export function restoreSlots(trustDomain: TrustDomain, { active, prepared, old }: StoredAuthorities): GenerationSlots {
  return {
    active: restoreAuthority(trustDomain, active),
    prepared: prepared === undefined ? undefined : restoreAuthority(trustDomain, prepared),
    old: old.map(restoreOldAuthority),
  };
}

function restoreAuthority(trustDomain: TrustDomain, stored: StoredAuthority): AuthorityGeneration {
  const x509 = restoreX509Authority({
    trustDomain,
    certificate: Buffer.from(stored.x509Certificate, "base64"),
    privateKeyPkcs8: Buffer.from(stored.x509PrivateKeyPkcs8, "base64"),
  });
  const { notBefore, notAfter } = x509;
  const privateKeyPkcs8 = Buffer.from(stored.jwtPrivateKeyPkcs8, "base64");
  return generationOf(x509, restoreJwtAuthority({ trustDomain, privateKeyPkcs8, notBefore, notAfter }));
}

function restoreOldAuthority({ x509Certificate, jwtPublicKey }: StoredOldAuthority): KnownAuthority {
  const { x509, notBefore, notAfter } = parseCertificate(Buffer.from(x509Certificate, "base64"));
  return {
    x509Certificate: Buffer.from(x509.raw),
    jwtPublicKey,
    notBefore: new Date(notBefore),
    notAfter: new Date(notAfter),
  };
}
