import type { Jwk } from "../spiffe/jwt-bundle.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { parseCertificate } from "../spiffe/x509-certificate.js";
import type { AuthoritySlots } from "./authority-schedule.js";
import { createJwtAuthority, type JwtAuthority, restoreJwtAuthority } from "./jwt-authority.js";
import type { StoredAuthorities, StoredAuthority, StoredOldAuthority } from "./key-store.js";
import { createWitAuthority, restoreWitAuthority, type WitAuthority } from "./wit-authority.js";
import { createX509Authority, restoreX509Authority, type X509Authority } from "./x509-authority.js";

/** What verifiers know of an authority. */
export interface KnownAuthority {
  /** DER of the root. */
  readonly x509Certificate: Buffer;
  readonly jwtPublicKey: Jwk;
  /** Absent if it signed under the first version, which had no WIT authority. */
  readonly witPublicKey: Jwk | undefined;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** An X.509, a JWT and a WIT authority that live and are replaced together. */
export interface AuthorityGeneration extends KnownAuthority {
  readonly x509: X509Authority;
  readonly jwt: JwtAuthority;
  readonly wit: WitAuthority;
}

export type GenerationSlots = AuthoritySlots<AuthorityGeneration, KnownAuthority>;

/** New authorities, valid from `now` (ms) for `lifetimeSeconds`. */
export function newGeneration(trustDomain: TrustDomain, lifetimeSeconds: number, now: number): AuthorityGeneration {
  const x509 = createX509Authority({ trustDomain, lifetimeSeconds, now });
  const life = { trustDomain, notBefore: x509.notBefore, notAfter: x509.notAfter };
  return generationOf(x509, createJwtAuthority(life), createWitAuthority(life));
}

function generationOf(x509: X509Authority, jwt: JwtAuthority, wit: WitAuthority): AuthorityGeneration {
  const { certificate: x509Certificate, notBefore, notAfter } = x509;
  const keys = { x509Certificate, jwtPublicKey: jwt.publicJwk, witPublicKey: wit.publicJwk };
  return { x509, jwt, wit, ...keys, notBefore, notAfter };
}

/** An authority without its private keys. */
export function knownPart({
  x509Certificate,
  jwtPublicKey,
  witPublicKey,
  notBefore,
  notAfter,
}: AuthorityGeneration): KnownAuthority {
  return { x509Certificate, jwtPublicKey, witPublicKey, notBefore, notAfter };
}

/** Everything that verifiers must know: who signs, who will, and who signed what is still valid. */
export function bundleOf({ active, prepared, old }: GenerationSlots) {
  const all: readonly KnownAuthority[] = [active, ...(prepared === undefined ? [] : [prepared]), ...old];
  return {
    x509Authorities: all.map((authority) => authority.x509Certificate),
    jwtKeys: all.map((authority) => authority.jwtPublicKey),
    witKeys: all.map((authority) => authority.witPublicKey).filter((key) => key !== undefined),
  };
}

/** The slots as the key store keeps them. */
export function storedForm({ active, prepared, old }: GenerationSlots): StoredAuthorities {
  return {
    active: storedAuthority(active),
    prepared: prepared === undefined ? undefined : storedAuthority(prepared),
    old: old.map(({ x509Certificate, jwtPublicKey, witPublicKey }) => ({
      x509Certificate: x509Certificate.toString("base64"),
      jwtPublicKey,
      witPublicKey,
    })),
  };
}

function storedAuthority({ x509, jwt, wit }: AuthorityGeneration): StoredAuthority {
  return {
    x509Certificate: x509.certificate.toString("base64"),
    x509PrivateKeyPkcs8: x509.privateKeyPkcs8.toString("base64"),
    jwtPrivateKeyPkcs8: jwt.privateKeyPkcs8.toString("base64"),
    witPrivateKeyPkcs8: wit.privateKeyPkcs8.toString("base64"),
  };
}

/** True if every authority that signs or will sign has a key of each kind; what the first version saved has no WIT keys, and restoring makes them. */
export function isComplete({ active, prepared }: StoredAuthorities): boolean {
  return [active, prepared].every((one) => one === undefined || one.witPrivateKeyPkcs8 !== undefined);
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
  const life = { trustDomain, notBefore, notAfter };
  const jwtKey = Buffer.from(stored.jwtPrivateKeyPkcs8, "base64");
  const wit =
    stored.witPrivateKeyPkcs8 === undefined
      ? createWitAuthority(life)
      : restoreWitAuthority({ ...life, privateKeyPkcs8: Buffer.from(stored.witPrivateKeyPkcs8, "base64") });
  return generationOf(x509, restoreJwtAuthority({ ...life, privateKeyPkcs8: jwtKey }), wit);
}

function restoreOldAuthority({ x509Certificate, jwtPublicKey, witPublicKey }: StoredOldAuthority): KnownAuthority {
  const { x509, notBefore, notAfter } = parseCertificate(Buffer.from(x509Certificate, "base64"));
  return {
    x509Certificate: Buffer.from(x509.raw),
    jwtPublicKey,
    witPublicKey,
    notBefore: new Date(notBefore),
    notAfter: new Date(notAfter),
  };
}
