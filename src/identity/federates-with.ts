import type { IdentityConfig } from "../config/config.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import type { X509BundleSource } from "./svid-source.js";

type Federating = Pick<IdentityConfig, "id" | "federatesWith">;

/** Whether workloads with `identity` deal with those of `trustDomain`: their own, and those that its entry names, or all where it names none. */
export function federatesWith({ id, federatesWith: names }: Federating, trustDomain: TrustDomain): boolean {
  return names === undefined || id.memberOf(trustDomain) || names.includes(trustDomain.name);
}

/** Of `all`, those whose bundles go to who has `identities`. */
export function trustDomainsFor(
  identities: readonly Federating[],
  all: readonly TrustDomain[],
): readonly TrustDomain[] {
  return all.filter((trustDomain) => identities.some((identity) => federatesWith(identity, trustDomain)));
}

/** `bundles` as a verifier has them that speaks as `identity`, read at each question; undefined: nobody is believed. */
export function bundlesFor(bundles: X509BundleSource, identity: () => Federating | undefined): X509BundleSource {
  return {
    x509Bundle(trustDomain) {
      const verifier = identity();
      return verifier !== undefined && federatesWith(verifier, trustDomain)
        ? bundles.x509Bundle(trustDomain)
        : undefined;
    },
    refusalOf: (id, chain) => bundles.refusalOf(id, chain),
    revocationLists: () => bundles.revocationLists(),
    onBundleChange: (listener) => bundles.onBundleChange(listener),
  };
}
