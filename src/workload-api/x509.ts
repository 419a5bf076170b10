import type { handleServerStreamingCall } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";
import type { Entitlement, IdentityRegistry } from "../identity/entitlement.js";
import { trustDomainsFor } from "../identity/federates-with.js";
import type { X509BundleSource, X509Svid, X509SvidSource } from "../identity/svid-source.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { type Authorization, identitiesOf } from "./authorization.js";
import {
  type X509BundlesRequest,
  X509BundlesResponse,
  type X509SVIDRequest,
  type X509SVIDResponse,
} from "./generated/workload.js";
import { StatusError } from "./grpc-status.js";
import { uniqueHints } from "./hints.js";
import type { OpenStreams } from "./open-streams.js";
import { followRotations } from "./rotations.js";

export interface X509Dependencies {
  readonly trustDomain: TrustDomain;
  readonly authorization: Authorization;
  readonly registry: Pick<IdentityRegistry, "onChange">;
  readonly svids: X509SvidSource;
  readonly bundles: X509BundleSource;
  /** Every trust domain that may have a bundle. */
  readonly trustDomains: () => readonly TrustDomain[];
  readonly streams: OpenStreams;
}

const FETCH_SVID = "FetchX509SVID";
const FETCH_BUNDLES = "FetchX509Bundles";

/** FetchX509SVID: every identity of the caller, default first, with the bundles; again on rotation, configuration change and bundle change (WA §5.2.1). */
export function fetchX509Svid(d: X509Dependencies): handleServerStreamingCall<X509SVIDRequest, X509SVIDResponse> {
  return d.streams.handle(async (call) => {
    const who = await d.authorization.identifyCaller(call);
    const rotations = followRotations(d.svids.onRotation);
    return {
      read() {
        const granted = d.authorization.entitled(who, FETCH_SVID);
        const svids = granted.map(({ identity, launchedBy }) => d.svids.x509Svid(identity.id, launchedBy));
        const response = {
          svids: svidMessages(d, svids),
          crl: [...d.bundles.revocationLists()],
          federatedBundles: federatedBundles(d, granted),
        };
        rotations.follow(granted.map(({ identity }) => identity.id));
        recordAll(granted, svids, (entitlement, svid) =>
          d.authorization.recordDelivery(who, entitlement, described(svid)),
        );
        return response;
      },
      subscribe(changed) {
        const unsubscribes = [
          d.registry.onChange(changed),
          d.bundles.onBundleChange(changed),
          rotations.subscribe(changed),
        ];
        return () => {
          for (const unsubscribe of unsubscribes) unsubscribe();
        };
      },
    };
  });
}

/** FetchX509Bundles: our own bundle and the federated ones, for a caller with an identity (XR-11, XR-12). */
export function fetchX509Bundles(
  d: X509Dependencies,
): handleServerStreamingCall<X509BundlesRequest, X509BundlesResponse> {
  return d.streams.handle(async (call) => {
    const who = await d.authorization.identifyCaller(call);
    return {
      read() {
        const granted = d.authorization.entitled(who, FETCH_BUNDLES);
        const bundles = { [d.trustDomain.id.toString()]: ownBundle(d), ...federatedBundles(d, granted) };
        return { crl: [...d.bundles.revocationLists()], bundles };
      },
      subscribe(changed) {
        const unsubscribes = [d.registry.onChange(changed), d.bundles.onBundleChange(changed)];
        return () => {
          for (const unsubscribe of unsubscribes) unsubscribe();
        };
      },
      same: (previous, next) => encoded(previous).equals(encoded(next)),
    };
  });
}

function encoded(message: X509BundlesResponse): Buffer {
  return Buffer.from(X509BundlesResponse.encode(message).finish());
}

function svidMessages(d: X509Dependencies, svids: readonly X509Svid[]): X509SVIDResponse["svids"] {
  const hints = uniqueHints(svids.map((svid) => svid.hint));
  const bundle = ownBundle(d);
  return svids.map((svid, index) => ({
    spiffeId: svid.id.toString(),
    x509Svid: Buffer.concat(svid.certificates),
    x509SvidKey: svid.privateKeyPkcs8,
    bundle,
    hint: hints[index] ?? "",
  }));
}

function described(svid: X509Svid): { type: string; serial: string; notAfter: string } {
  return { type: "x509", serial: svid.serial, notAfter: svid.notAfter.toISOString() };
}

function recordAll(
  granted: readonly Entitlement[],
  svids: readonly X509Svid[],
  record: (entitlement: Entitlement, svid: X509Svid) => void,
): void {
  granted.forEach((entitlement, index) => {
    const svid = svids[index];
    if (svid !== undefined) record(entitlement, svid);
  });
}

function ownBundle(d: X509Dependencies): Buffer {
  const own = d.bundles.x509Bundle(d.trustDomain);
  if (own === undefined || own.authorities.length === 0)
    throw new StatusError(
      status.UNAVAILABLE,
      `the trust domain ${d.trustDomain} has no X.509 authority yet; try again`,
    );
  return Buffer.concat(own.authorities);
}

/** Of the trust domains that the caller's identities federate with, keyed by SPIFFE ID; never our own, never merged into it (XR-9, XR-10). */
function federatedBundles(d: X509Dependencies, granted: readonly Entitlement[]): Record<string, Buffer> {
  const bundles: Record<string, Buffer> = {};
  for (const trustDomain of trustDomainsFor(identitiesOf(granted), d.trustDomains())) {
    if (trustDomain.equals(d.trustDomain)) continue;
    const bundle = d.bundles.x509Bundle(trustDomain);
    if (bundle !== undefined) bundles[trustDomain.id.toString()] = Buffer.concat(bundle.authorities);
  }
  return bundles;
}
