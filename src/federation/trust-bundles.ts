import type { TrustBundles } from "../identity/bundles.js";
import type { X509Bundle } from "../identity/svid-source.js";
import type { Jwk } from "../spiffe/jwt-bundle.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import type { ForeignBundle, ForeignBundles } from "./foreign-bundles.js";

/**
 * Our own bundle and those of other trust domains, each under its own name and never merged (D12, XR-10).
 * A trust domain whose bundle holds nothing is not trusted and not served (Trust Domain and Bundle §4).
 */
export function joinTrustBundles(ours: TrustDomain, own: TrustBundles, foreign: ForeignBundles): TrustBundles {
  const served = new WeakMap<
    ForeignBundle,
    { x509?: X509Bundle | undefined; jwt?: { keys: readonly Jwk[] } | undefined }
  >();

  function servedOf(trustDomain: TrustDomain) {
    const found = foreign.find(trustDomain);
    if (found === undefined) return undefined;
    const known = served.get(found);
    if (known !== undefined) return known;
    const { x509Authorities, jwtKeys } = found.bundle;
    const made = {
      x509: x509Authorities.length === 0 ? undefined : { trustDomain: found.trustDomain, authorities: x509Authorities },
      jwt: jwtKeys.length === 0 ? undefined : { keys: jwtKeys },
    };
    served.set(found, made);
    return made;
  }

  return {
    get trustDomains() {
      return [ours, ...foreign.all.map(({ trustDomain }) => trustDomain)];
    },
    x509Bundle: (trustDomain) => (trustDomain.equals(ours) ? own.x509Bundle(trustDomain) : servedOf(trustDomain)?.x509),
    jwtBundle: (trustDomain) => (trustDomain.equals(ours) ? own.jwtBundle(trustDomain) : servedOf(trustDomain)?.jwt),
    // A SPIFFE bundle names no WIT keys yet: only our own are known.
    witBundle: (trustDomain) => own.witBundle(trustDomain),
    refusalOf: (id, chain) => own.refusalOf(id, chain),
    refusalOfToken: (id, claims) => own.refusalOfToken(id, claims),
    revocationLists: () => own.revocationLists(),
    onBundleChange(listener) {
      const unsubscribes = [own.onBundleChange(listener), foreign.onChange(listener)];
      return () => {
        for (const unsubscribe of unsubscribes) unsubscribe();
      };
    },
  };
}
