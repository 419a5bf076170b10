import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { createListeners } from "./listeners.js";
import type { Revocations } from "./revocations.js";
import type { JsonWebKey, JwtBundleSource, WitBundleSource, X509Bundle, X509BundleSource } from "./svid-source.js";
import type { TrustDomainAuthority } from "./trust-domain-authority.js";

/** The trust bundles that we know: one for each trust domain, never merged (D12, XR-10, XR-15). */
export interface TrustBundles extends X509BundleSource, JwtBundleSource, WitBundleSource {}

/** What of the revocations verifiers must know. */
export type BundleRevocations = Pick<Revocations, "refusalOf" | "revokedBy" | "onChange"> &
  Pick<JwtBundleSource, "refusalOfToken">;

const NOTHING_REVOKED: BundleRevocations = {
  refusalOf: () => undefined,
  refusalOfToken: () => undefined,
  revokedBy: () => [],
  onChange: () => () => undefined,
};

/** The bundles of our own trust domain, always what the authority says now, and what of it is revoked. */
export function createTrustBundles(
  authority: TrustDomainAuthority,
  revocations: BundleRevocations = NOTHING_REVOKED,
): TrustBundles {
  const ours = authority.trustDomain;
  const listeners = createListeners<void>(undefined);
  let x509: X509Bundle | undefined;
  let jwt: { readonly keys: readonly JsonWebKey[] } | undefined;
  let wit: { readonly keys: readonly JsonWebKey[] } | undefined;
  let lists: readonly Buffer[] | undefined;
  const changed = () => {
    lists = undefined;
    listeners.notify();
  };
  authority.onBundleChange(changed);
  revocations.onChange(changed);
  // Another authority signs: its list must be there with its first SVID.
  authority.onActivation(() => {
    lists = undefined;
  });

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
    refusalOf: (id, chain) => revocations.refusalOf(id, chain),
    refusalOfToken: (id, claims) => revocations.refusalOfToken(id, claims),
    revocationLists() {
      lists ??= authority.revocationLists();
      return lists;
    },
    onBundleChange: (listener) => listeners.add(listener),
  };
}
