import type { TrustDomain } from "../spiffe/spiffe-id.js";
import type { JsonWebKey, JwtBundleSource, WitBundleSource, X509Bundle, X509BundleSource } from "./svid-source.js";
import type { TrustDomainAuthority } from "./trust-domain-authority.js";

/** The trust bundles that we know: one for each trust domain, never merged (D12, XR-10, XR-15). */
export interface TrustBundles extends X509BundleSource, JwtBundleSource, WitBundleSource {}

/** The bundles of our own trust domain, always what the authority says now. */
export function createTrustBundles(authority: TrustDomainAuthority): TrustBundles {
  const ours = authority.trustDomain;
  let x509: X509Bundle | undefined;
  let jwt: { readonly keys: readonly JsonWebKey[] } | undefined;
  let wit: { readonly keys: readonly JsonWebKey[] } | undefined;
  return {
    trustDomains: [ours],
    x509Bundle(trustDomain: TrustDomain) {
      if (!trustDomain.equals(ours)) return undefined;
      const authorities = authority.x509Authorities;
      if (x509?.authorities !== authorities) x509 = { trustDomain: ours, authorities };
      return x509;
    },
    jwtBundle(trustDomain: TrustDomain) {
      if (!trustDomain.equals(ours)) return undefined;
      const keys = authority.jwtKeys;
      if (jwt?.keys !== keys) jwt = { keys };
      return jwt;
    },
    witBundle(trustDomain: TrustDomain) {
      if (!trustDomain.equals(ours)) return undefined;
      const keys = authority.witKeys;
      if (wit?.keys !== keys) wit = { keys };
      return wit;
    },
    onBundleChange: (listener) => authority.onBundleChange(listener),
  };
}
