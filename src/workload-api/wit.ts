import { type handleServerStreamingCall, status } from "@grpc/grpc-js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import { trustDomainsFor } from "../identity/federates-with.js";
import type { JsonWebKey, WitBundleSource, WitSvidSource } from "../identity/svid-source.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { type Authorization, identitiesOf, parseWantedId } from "./authorization.js";
import {
  type WITBundlesRequest,
  WITBundlesResponse,
  type WITSVIDRequest,
  type WITSVIDResponse,
} from "./generated/workload.js";
import { StatusError } from "./grpc-status.js";
import { uniqueHints } from "./hints.js";
import type { OpenStreams } from "./open-streams.js";
import { followRotations } from "./rotations.js";

/**
 * The WIT profile of the Workload API. Incubating: the standard may still change it.
 * A WIT-SVID is no bearer token; whoever holds it proves possession of `wit_svid_key`.
 */
export interface WitDependencies {
  readonly trustDomain: TrustDomain;
  readonly authorization: Authorization;
  readonly registry: Pick<IdentityRegistry, "onChange">;
  readonly witSvids: WitSvidSource;
  readonly witBundles: WitBundleSource;
  /** Every trust domain that may have a bundle. */
  readonly trustDomains: () => readonly TrustDomain[];
  readonly streams: OpenStreams;
}

const FETCH_SVID = "FetchWITSVID";
const FETCH_BUNDLES = "FetchWITBundles";

/** FetchWITSVID: a token and its key for each identity of the caller, or for the one it names; again on rotation and configuration change (WR-2, WR-3). */
export function fetchWitSvid(d: WitDependencies): handleServerStreamingCall<WITSVIDRequest, WITSVIDResponse> {
  return d.streams.handle(async (call) => {
    const wanted = parseWantedId(call.request.spiffeId);
    const who = await d.authorization.identifyCaller(call);
    const rotations = followRotations(d.witSvids.onWitRotation);
    return {
      read() {
        const granted = d.authorization.entitledTo(who, FETCH_SVID, wanted);
        const svids = granted.map((entitlement) => {
          const svid = d.witSvids.witSvid(entitlement.identity.id, entitlement.launchedBy);
          const what = { type: "wit", tokenId: svid.tokenId, notAfter: svid.expiresAt.toISOString() };
          d.authorization.recordDelivery(who, entitlement, what);
          return svid;
        });
        rotations.follow(granted.map(({ identity }) => identity.id));
        const hints = uniqueHints(svids.map((svid) => svid.hint));
        return {
          svids: svids.map((svid, index) => ({
            spiffeId: svid.id.toString(),
            witSvid: svid.token,
            witSvidKey: JSON.stringify(svid.privateJwk),
            hint: hints[index] ?? "",
          })),
        };
      },
      subscribe(changed) {
        const unsubscribes = [d.registry.onChange(changed), rotations.subscribe(changed)];
        return () => {
          for (const unsubscribe of unsubscribes) unsubscribe();
        };
      },
    };
  });
}

/** FetchWITBundles: JWK Sets of our own and of federated trust domains, for a caller with an identity (WR-4). */
export function fetchWitBundles(d: WitDependencies): handleServerStreamingCall<WITBundlesRequest, WITBundlesResponse> {
  return d.streams.handle(async (call) => {
    const who = await d.authorization.identifyCaller(call);
    return {
      read() {
        const granted = d.authorization.entitled(who, FETCH_BUNDLES);
        return { bundles: jwkSets(d, trustDomainsFor(identitiesOf(granted), d.trustDomains())) };
      },
      subscribe(changed) {
        const unsubscribes = [d.registry.onChange(changed), d.witBundles.onBundleChange(changed)];
        return () => {
          for (const unsubscribe of unsubscribes) unsubscribe();
        };
      },
      same: (previous, next) => encoded(previous).equals(encoded(next)),
    };
  });
}

/** Keyed by the trust domain's SPIFFE ID. */
function jwkSets(d: WitDependencies, trustDomains: readonly TrustDomain[]): Record<string, string> {
  const bundles: Record<string, string> = {};
  for (const trustDomain of trustDomains) {
    const bundle = d.witBundles.witBundle(trustDomain);
    if (bundle !== undefined) bundles[trustDomain.id.toString()] = JSON.stringify({ keys: distinctKeys(bundle.keys) });
  }
  if (bundles[d.trustDomain.id.toString()] === undefined)
    throw new StatusError(status.UNAVAILABLE, `the trust domain ${d.trustDomain} has no WIT authority yet; try again`);
  return bundles;
}

/** WR-4: every key has a `kid` of its own. What two keys of a foreign bundle are called names neither of them. */
function distinctKeys(keys: readonly JsonWebKey[]): readonly JsonWebKey[] {
  return keys.filter(({ kid }) => kid !== undefined && keys.filter((other) => other.kid === kid).length === 1);
}

function encoded(message: WITBundlesResponse): Buffer {
  return Buffer.from(WITBundlesResponse.encode(message).finish());
}
