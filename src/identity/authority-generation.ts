import type { Jwk } from "../spiffe/jwt-bundle.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { parseCertificate } from "../spiffe/x509-certificate.js";
import type { AuthoritySlots } from "./authority-schedule.js";
import { subjectKeyIdentifier } from "./certificate-template.js";
import { createJwtAuthority, type JwtAuthority, restoreJwtAuthority } from "./jwt-authority.js";
import type { StoredAuthorities, StoredAuthority, StoredOldAuthority } from "./key-store.js";
import type { UpstreamAuthority } from "./upstream-authority.js";
import { createWitAuthority, restoreWitAuthority, type WitAuthority } from "./wit-authority.js";
import {
  createX509Authority,
  type RevocationListRequest,
  restoreX509Authority,
  type X509Authority,
} from "./x509-authority.js";

/** What verifiers know of an authority. */
export interface KnownAuthority {
  /** Hex of the X.509 authority's subject key identifier: the generation's name. */
  readonly keyId: string;
  /** DER of the X.509 authority's own certificate. */
  readonly x509Certificate: Buffer;
  /** DER of the certificates above it, the upstream root last; empty for a root. */
  readonly upstreamChain: readonly Buffer[];
  /** DER of the bundle's entry: its own certificate, or the upstream root. */
  readonly x509Root: Buffer;
  readonly jwtPublicKey: Jwk;
  /** Absent if it signed under the first version, which had no WIT authority. */
  readonly witPublicKey: Jwk | undefined;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** An authority that signs no more SVIDs. */
export interface OldAuthority extends KnownAuthority {
  readonly tainted: boolean;
  /**
   * The list of what it has issued and is no longer believed. Its key stays in this process's memory to sign it and is on no disk: after a restart it is the last
   * list that it signed, without what was revoked since. The daemon's own verifiers do not need it.
   */
  readonly revocationList: X509Authority["revocationList"] | undefined;
  readonly signsRevocations: boolean;
}

/** An X.509, a JWT and a WIT authority that live and are replaced together. */
export interface AuthorityGeneration extends KnownAuthority {
  readonly x509: X509Authority;
  readonly jwt: JwtAuthority;
  readonly wit: WitAuthority;
}

export type GenerationSlots = AuthoritySlots<AuthorityGeneration, OldAuthority>;

/** New authorities below `upstream`, or a root of their own, valid from `now` (ms) for `lifetimeSeconds` or as long as `upstream` is. */
export function newGeneration(
  trustDomain: TrustDomain,
  lifetimeSeconds: number,
  now: number,
  upstream: UpstreamAuthority | undefined,
): AuthorityGeneration {
  const x509 = createX509Authority({ trustDomain, lifetimeSeconds, now, upstream });
  const life = { trustDomain, notBefore: x509.notBefore, notAfter: x509.notAfter };
  return generationOf(x509, createJwtAuthority(life), createWitAuthority(life));
}

function generationOf(x509: X509Authority, jwt: JwtAuthority, wit: WitAuthority): AuthorityGeneration {
  const { keyId, certificate: x509Certificate, root: x509Root, upstreamChain, notBefore, notAfter } = x509;
  const keys = { x509Certificate, x509Root, upstreamChain, jwtPublicKey: jwt.publicJwk, witPublicKey: wit.publicJwk };
  return { x509, jwt, wit, keyId, ...keys, notBefore, notAfter };
}

/** True if `authority` is below exactly `upstream`, or a root where there is none. */
export function isBelow(authority: KnownAuthority, upstream: UpstreamAuthority | undefined): boolean {
  const chain = upstream?.chain ?? [];
  const { upstreamChain } = authority;
  return chain.length === upstreamChain.length && chain.every((one, index) => upstreamChain[index]?.equals(one));
}

/** An authority without what it could sign SVIDs with. */
export function oldPart({ x509, jwt: _jwt, wit: _wit, ...known }: AuthorityGeneration): OldAuthority {
  return {
    ...known,
    tainted: false,
    revocationList: (request) => x509.revocationList(request),
    signsRevocations: true,
  };
}

/** Everything that verifiers must know: who signs, who will, and who signed what is still valid. */
export function bundleOf({ active, prepared, old }: GenerationSlots) {
  const all: readonly KnownAuthority[] = [active, ...(prepared === undefined ? [] : [prepared]), ...old];
  return {
    x509Authorities: withoutCopies(all.map((authority) => authority.x509Root)),
    jwtKeys: all.map((authority) => authority.jwtPublicKey),
    witKeys: all.map((authority) => authority.witPublicKey).filter((key) => key !== undefined),
  };
}

/** Several generations may hang below one upstream root. */
function withoutCopies(roots: readonly Buffer[]): readonly Buffer[] {
  return roots.filter((root, index) => roots.findIndex((other) => other.equals(root)) === index);
}

/** The slots as the key store keeps them; `about` says what a revocation list now has to tell of a generation. */
export function storedForm(
  { active, prepared, old }: GenerationSlots,
  about: (keyId: string) => RevocationListRequest,
): StoredAuthorities {
  return {
    active: storedAuthority(active),
    prepared: prepared === undefined ? undefined : storedAuthority(prepared),
    old: old.map(({ keyId, x509Certificate, upstreamChain, tainted, jwtPublicKey, witPublicKey, revocationList }) => ({
      x509Certificate: x509Certificate.toString("base64"),
      ...storedChain(upstreamChain),
      ...(tainted ? { tainted } : {}),
      jwtPublicKey,
      witPublicKey,
      revocationList: revocationList?.(about(keyId)).toString("base64"),
    })),
  };
}

function storedAuthority({ x509, jwt, wit }: AuthorityGeneration): StoredAuthority {
  return {
    x509Certificate: x509.certificate.toString("base64"),
    ...storedChain(x509.upstreamChain),
    x509PrivateKeyPkcs8: x509.privateKeyPkcs8.toString("base64"),
    jwtPrivateKeyPkcs8: jwt.privateKeyPkcs8.toString("base64"),
    witPrivateKeyPkcs8: wit.privateKeyPkcs8.toString("base64"),
  };
}

function storedChain(chain: readonly Buffer[]): { upstreamChain?: readonly string[] } {
  return chain.length === 0 ? {} : { upstreamChain: chain.map((der) => der.toString("base64")) };
}

function restoreChain({ upstreamChain = [] }: Pick<StoredAuthority, "upstreamChain">): readonly Buffer[] {
  return upstreamChain.map((der) => Buffer.from(der, "base64"));
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
    upstreamChain: restoreChain(stored),
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

function restoreOldAuthority(stored: StoredOldAuthority): OldAuthority {
  const { x509, notBefore, notAfter } = parseCertificate(Buffer.from(stored.x509Certificate, "base64"));
  const x509Certificate = Buffer.from(x509.raw);
  const upstreamChain = restoreChain(stored);
  const { revocationList: list } = stored;
  return {
    keyId: subjectKeyIdentifier(x509.publicKey.export({ format: "der", type: "spki" })).toString("hex"),
    x509Certificate,
    upstreamChain,
    x509Root: upstreamChain.at(-1) ?? x509Certificate,
    jwtPublicKey: stored.jwtPublicKey,
    witPublicKey: stored.witPublicKey,
    notBefore: new Date(notBefore),
    notAfter: new Date(notAfter),
    tainted: stored.tainted === true,
    revocationList: list === undefined ? undefined : () => Buffer.from(list, "base64"),
    signsRevocations: false,
  };
}
