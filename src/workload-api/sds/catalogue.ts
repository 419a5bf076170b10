import { createHash } from "node:crypto";
import { status } from "@grpc/grpc-js";
import type { Entitlement } from "../../identity/entitlement.js";
import { trustDomainsFor } from "../../identity/federates-with.js";
import type { X509Bundle, X509BundleSource, X509Svid, X509SvidSource } from "../../identity/svid-source.js";
import type { TrustDomain } from "../../spiffe/spiffe-id.js";
import { identitiesOf } from "../authorization.js";
import { Secret } from "../generated/envoy/extensions/transport_sockets/tls/v3/secret.js";
import type { Any } from "../generated/google/protobuf/any.js";
import { StatusError } from "../grpc-status.js";
import type { Validation } from "./node.js";
import { certificateSecret, rootsSecret, trustDomainsSecret } from "./secret.js";

export const SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/** Names that need no SPIFFE ID in an Envoy's configuration, as SPIRE has them. */
const DEFAULT_CERTIFICATE = "default";
const OWN_BUNDLE = "ROOTCA";
const ALL_BUNDLES = "ALL";

/** A secret as it is sent. */
export interface SecretResource {
  readonly name: string;
  /** Changes when the content does, and only then: a client that comes back with it has the newest. */
  readonly version: string;
  readonly resource: Any;
  /** What is handed out with it, for the record; absent for a bundle. */
  readonly certificate?: { readonly entitlement: Entitlement; readonly svid: X509Svid };
}

/** Everything that one caller may have now, by resource name. */
export interface Catalogue {
  /** What a client that names nothing gets: a certificate for each identity, default first, then the bundle of each trust domain. */
  readonly all: readonly string[];
  has(name: string): boolean;
  /** Makes the resource `name`, which must be in the catalogue. Throws StatusError, and what `X509SvidSource.x509Svid` throws. */
  resource(name: string): SecretResource;
}

export interface CatalogueDependencies {
  readonly trustDomain: TrustDomain;
  readonly svids: Pick<X509SvidSource, "x509Svid">;
  readonly bundles: Pick<X509BundleSource, "x509Bundle">;
  /** Every trust domain that may have a bundle. */
  readonly trustDomains: () => readonly TrustDomain[];
}

/** The catalogue of a caller to whom `granted` was granted, default first, and that validates peers by `validation`. */
export function catalogueOf(
  d: CatalogueDependencies,
  granted: readonly Entitlement[],
  validation: Validation,
): Catalogue {
  const entries = new Map<string, (name: string) => SecretResource>();
  for (const entitlement of granted) entries.set(entitlement.identity.id.toString(), certificateOf(d, entitlement));
  const own = () => [ownBundle(d)];
  const federated = federatedBundles(d, granted);
  entries.set(d.trustDomain.id.toString(), bundleOf(own, validation));
  for (const bundle of federated)
    entries.set(
      bundle.trustDomain.id.toString(),
      bundleOf(() => [bundle], validation),
    );
  const all = [...entries.keys()];

  const [first] = granted;
  if (first !== undefined) entries.set(DEFAULT_CERTIFICATE, certificateOf(d, first));
  entries.set(OWN_BUNDLE, bundleOf(own, validation));
  entries.set(
    ALL_BUNDLES,
    bundleOf(() => [...own(), ...federated], validation),
  );

  return {
    all,
    has: (name) => entries.has(name),
    resource(name) {
      const make = entries.get(name);
      if (make === undefined) throw new StatusError(status.INVALID_ARGUMENT, `there is no secret ${name}`);
      return make(name);
    },
  };
}

/** One version for all of `resources`. */
export function versionOf(resources: readonly SecretResource[]): string {
  return digest(JSON.stringify(resources.map(({ name, version }) => [name, version])));
}

function certificateOf(d: CatalogueDependencies, entitlement: Entitlement): (name: string) => SecretResource {
  return (name) => {
    const svid = d.svids.x509Svid(entitlement.identity.id, entitlement.launchedBy);
    return { ...resourceOf(certificateSecret(name, svid)), certificate: { entitlement, svid } };
  };
}

function bundleOf(bundles: () => readonly X509Bundle[], validation: Validation): (name: string) => SecretResource {
  return (name) => {
    const some = bundles();
    if (validation === "by-trust-domain") return resourceOf(trustDomainsSecret(name, some));
    const [one, ...more] = some;
    // Roots of several trust domains in one list would let each speak for the others (D12).
    if (one === undefined || more.length > 0 || name === ALL_BUNDLES) {
      const why =
        "needs the SPIFFE certificate validator: Envoy 1.18 or newer, not switched off in the node's metadata";
      throw new StatusError(status.INVALID_ARGUMENT, `${JSON.stringify(name)} ${why}`);
    }
    return resourceOf(rootsSecret(name, one));
  };
}

function resourceOf(secret: Secret): SecretResource {
  const value = Buffer.from(Secret.encode(secret).finish());
  return { name: secret.name, version: digest(value), resource: { typeUrl: SECRET_TYPE, value } };
}

function ownBundle(d: CatalogueDependencies): X509Bundle {
  const own = d.bundles.x509Bundle(d.trustDomain);
  if (own !== undefined && own.authorities.length > 0) return own;
  throw new StatusError(status.UNAVAILABLE, `the trust domain ${d.trustDomain} has no X.509 authority yet; try again`);
}

/** Those that the caller's identities federate with, and that have roots: an Envoy refuses a whole configuration for an empty one. */
function federatedBundles(d: CatalogueDependencies, granted: readonly Entitlement[]): readonly X509Bundle[] {
  return trustDomainsFor(identitiesOf(granted), d.trustDomains()).flatMap((trustDomain) => {
    const bundle = trustDomain.equals(d.trustDomain) ? undefined : d.bundles.x509Bundle(trustDomain);
    return bundle !== undefined && bundle.authorities.length > 0 ? [bundle] : [];
  });
}

function digest(content: string | Buffer): string {
  return createHash("sha256").update(content).digest("hex").slice(0, 32);
}
