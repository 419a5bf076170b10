import type { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";

/** An X.509-SVID with its private key. XS; SPIFFE X509-SVID §2–4. */
export interface X509Svid {
  readonly id: SpiffeId;
  /** DER, leaf first, then intermediates; the root is never in it. */
  readonly certificates: readonly Buffer[];
  /** Unencrypted PKCS#8 DER. */
  readonly privateKeyPkcs8: Buffer;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** When it will be replaced. */
  readonly rotateAt: Date;
  readonly hint: string;
  /** Lower-case hex serial number, for the record. */
  readonly serial: string;
}

/** The X.509 trust bundle of one trust domain: DER roots. Bundles of different trust domains are never merged (D12). */
export interface X509Bundle {
  readonly trustDomain: TrustDomain;
  readonly authorities: readonly Buffer[];
}

/** Where TLS code gets its certificate from. The daemon's issuer and a Workload API client are two implementations; TLS code never knows which. */
export interface X509SvidSource {
  /** The SVID valid now for `id`, issued on first use. Throws CodedError `identity-unknown` or `not-ready`. */
  /** `launchedBy`: SPIFFE IDs of the agents that launched its holder, nearest first. It is part of the certificate. */
  x509Svid(id: SpiffeId, launchedBy?: readonly string[]): X509Svid;
  /** Called after each replacement of `id`'s SVID; the returned function unsubscribes. */
  onRotation(id: SpiffeId, listener: (svid: X509Svid) => void): () => void;
}

/** Where verifiers get the bundle of a peer's own trust domain from. */
export interface X509BundleSource {
  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined;
  /** Why the holder of `id` is not believed although a bundle vouches for its `chain` (DER, as presented), or undefined. Asked after path validation. */
  refusalOf(id: SpiffeId, chain: readonly Buffer[]): string | undefined;
  /** DER revocation lists of our own trust domain, newest state (XR-13). The same array until they change. */
  revocationLists(): readonly Buffer[];
  /** Called after any change of any bundle or of what is revoked; the returned function unsubscribes. */
  onBundleChange(listener: () => void): () => void;
}

/** A signed JWT-SVID. JWT-SVID §2–3. */
export interface JwtSvid {
  readonly id: SpiffeId;
  /** Compact JWS. */
  readonly token: string;
  readonly expiresAt: Date;
  readonly hint: string;
}

/** A signed WIT-SVID with its private key. Incubating: SPIFFE WIT-SVID. */
export interface WitSvid {
  readonly id: SpiffeId;
  /** Compact JWS. */
  readonly token: string;
  /** Proves possession: its public part is the token's `cnf.jwk`. */
  readonly privateJwk: JsonWebKey;
  readonly issuedAt: Date;
  readonly expiresAt: Date;
  /** When it will be replaced. */
  readonly rotateAt: Date;
  readonly hint: string;
  /** `jti`, for the record. */
  readonly tokenId: string;
}

export interface WitSvidSource {
  /** The WIT-SVID valid now for `id`, issued on first use. Throws CodedError `identity-unknown` or `not-ready`. */
  witSvid(id: SpiffeId): WitSvid;
  /** Called after each replacement of `id`'s WIT-SVID; the returned function unsubscribes. */
  onWitRotation(id: SpiffeId, listener: (svid: WitSvid) => void): () => void;
}

export interface WitBundleSource {
  /** The WIT bundle of one trust domain as a JWK Set (WR-4), or undefined. */
  witBundle(trustDomain: TrustDomain): { readonly keys: readonly JsonWebKey[] } | undefined;
  onBundleChange(listener: () => void): () => void;
}

/** Issues JWT-SVIDs. One that was signed for the same identity, list of audiences and launchers is handed out again until half of its life is over. */
export interface JwtSvidIssuer {
  /**
   * Resolves once the issue is recorded, and with it what `delivery` records of this hand-out (`again`: not the token's first); nobody has the token before.
   * Rejects as `delivery` does, and with CodedError `identity-unknown`, `identity-revoked`, `audience-missing` or `not-ready`. `launchedBy`: SPIFFE IDs of
   * the agents that launched its holder, nearest first.
   */
  jwtSvid(
    id: SpiffeId,
    audiences: readonly string[],
    launchedBy?: readonly string[],
    delivery?: (svid: JwtSvid, again: boolean) => Promise<void>,
  ): Promise<JwtSvid>;
}

export interface JwtBundleSource {
  /** The JWT bundle of one trust domain as a JWK Set (JR-7…JR-9), or undefined. */
  jwtBundle(trustDomain: TrustDomain): { readonly keys: readonly JsonWebKey[] } | undefined;
  /** Every trust domain that has a bundle; our own is always among them. */
  readonly trustDomains: readonly TrustDomain[];
  onBundleChange(listener: () => void): () => void;
}

export interface JsonWebKey {
  readonly kty: string;
  readonly kid?: string;
  readonly use?: string;
  readonly [member: string]: unknown;
}
