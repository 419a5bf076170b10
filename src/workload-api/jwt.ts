import { type handleServerStreamingCall, type handleUnaryCall, status } from "@grpc/grpc-js";
import type { AuditFields } from "../audit/audit-log.js";
import { CodedError } from "../coded-error.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import type { JwtBundleSource, JwtSvid, JwtSvidIssuer, X509BundleSource } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import { parseAndValidateJwtSvid } from "../spiffe/jwt-svid.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { type Authorization, parseWantedId } from "./authorization.js";
import {
  type JWTBundlesRequest,
  JWTBundlesResponse,
  type JWTSVIDRequest,
  type JWTSVIDResponse,
  type ValidateJWTSVIDRequest,
  type ValidateJWTSVIDResponse,
} from "./generated/workload.js";
import { StatusError } from "./grpc-status.js";
import { uniqueHints } from "./hints.js";
import type { OpenStreams } from "./open-streams.js";
import { unary } from "./unary.js";

export interface JwtDependencies {
  readonly trustDomain: TrustDomain;
  readonly authorization: Authorization;
  readonly registry: Pick<IdentityRegistry, "onChange">;
  readonly jwtIssuer: JwtSvidIssuer;
  readonly jwtBundles: JwtBundleSource;
  readonly bundles: Pick<X509BundleSource, "refusalOf">;
  readonly clock: Clock;
  readonly streams: OpenStreams;
}

const FETCH_SVID = "FetchJWTSVID";
const FETCH_BUNDLES = "FetchJWTBundles";

/** FetchJWTSVID: a token for each identity of the caller, or for the one it names (WA §6.2.1). Recorded before it leaves. */
export function fetchJwtSvid(d: JwtDependencies): handleUnaryCall<JWTSVIDRequest, JWTSVIDResponse> {
  const deliveryOf = createDeliveries();
  return unary(async (call) => {
    const audiences = requireAudiences(call.request.audience);
    const wanted = parseWantedId(call.request.spiffeId);
    const who = await d.authorization.identifyCaller(call);
    const granted = await d.authorization.entitledInTurn(who, FETCH_SVID, wanted);
    if (call.cancelled) throw new StatusError(status.CANCELLED, "the call was cancelled");
    const issued = granted.map((entitlement) =>
      d.jwtIssuer.jwtSvid(entitlement.identity.id, audiences, entitlement.launchedBy, (svid, again) =>
        d.authorization.recordDeliveryInTurn(who, FETCH_SVID, entitlement, deliveryOf(svid, audiences, again)),
      ),
    );
    const svids = await Promise.all(issued);
    const hints = uniqueHints(svids.map((svid) => svid.hint));
    return {
      svids: svids.map((svid, index) => ({
        spiffeId: svid.id.toString(),
        svid: svid.token,
        hint: hints[index] ?? "",
      })),
    };
  });
}

/** What the record says of a hand-out. The same object each time that a token is handed out again. */
function createDeliveries(): (svid: JwtSvid, audience: readonly string[], again: boolean) => AuditFields {
  const known = new WeakMap<JwtSvid, AuditFields>();
  return (svid, audience, again) => {
    const before = again ? known.get(svid) : undefined;
    if (before !== undefined) return before;
    const what = { type: "jwt", audience, notAfter: svid.expiresAt.toISOString(), ...(again && { again }) };
    if (again) known.set(svid, what);
    return what;
  };
}

/** FetchJWTBundles: JWK Sets of our own and of federated trust domains, for a caller with an identity (WA §6.2.2). */
export function fetchJwtBundles(d: JwtDependencies): handleServerStreamingCall<JWTBundlesRequest, JWTBundlesResponse> {
  return d.streams.handle(async (call) => {
    const who = await d.authorization.identifyCaller(call);
    return {
      read() {
        d.authorization.entitled(who, FETCH_BUNDLES);
        return { bundles: jwkSets(d) };
      },
      subscribe(changed) {
        const unsubscribes = [d.registry.onChange(changed), d.jwtBundles.onBundleChange(changed)];
        return () => {
          for (const unsubscribe of unsubscribes) unsubscribe();
        };
      },
      same: (previous, next) => encoded(previous).equals(encoded(next)),
    };
  });
}

/**
 * ValidateJWTSVID: is this token good for that audience (WA §6.2.3)? Needs no identity: whoever verifies learns nothing that the token does not say.
 * Whatever is wrong with the token is InvalidArgument, as in SPIRE.
 */
export function validateJwtSvid(d: JwtDependencies): handleUnaryCall<ValidateJWTSVIDRequest, ValidateJWTSVIDResponse> {
  return unary(async (call) => {
    const { audience, svid } = call.request;
    if (audience === "") throw new StatusError(status.INVALID_ARGUMENT, "audience must be specified");
    if (svid === "") throw new StatusError(status.INVALID_ARGUMENT, "svid must be specified");
    await d.authorization.identifyCaller(call);
    const validated = validateToken(d, svid, audience);
    const refusal = d.bundles.refusalOf(validated.id, []);
    if (refusal !== undefined) throw new StatusError(status.INVALID_ARGUMENT, refusal);
    return { spiffeId: validated.id.toString(), claims: { ...validated.claims, aud: [...validated.audience] } };
  });
}

function validateToken(
  d: JwtDependencies,
  token: string,
  audience: string,
): ReturnType<typeof parseAndValidateJwtSvid> {
  try {
    return parseAndValidateJwtSvid(
      token,
      audience,
      (trustDomain) => d.jwtBundles.jwtBundle(trustDomain),
      new Date(d.clock.now()),
    );
  } catch (thrown) {
    if (!(thrown instanceof CodedError)) throw thrown;
    throw new StatusError(status.INVALID_ARGUMENT, `${thrown.message} (${thrown.code})`, { cause: thrown });
  }
}

/** JR-1, and no audience may be empty: a token for nobody in particular is one for everybody. */
function requireAudiences(audiences: readonly string[]): readonly string[] {
  if (audiences.length === 0) throw new StatusError(status.INVALID_ARGUMENT, "audience must be specified");
  if (audiences.includes("")) throw new StatusError(status.INVALID_ARGUMENT, "audience must not be empty");
  return audiences;
}

/** Keyed by the trust domain's SPIFFE ID; JWK Sets without the `spiffe_*` members of a federation bundle (JR-7, JR-9). */
function jwkSets(d: JwtDependencies): Record<string, Buffer> {
  const bundles: Record<string, Buffer> = {};
  for (const trustDomain of d.jwtBundles.trustDomains) {
    const bundle = d.jwtBundles.jwtBundle(trustDomain);
    if (bundle !== undefined) bundles[trustDomain.id.toString()] = Buffer.from(JSON.stringify({ keys: bundle.keys }));
  }
  if (bundles[d.trustDomain.id.toString()] === undefined)
    throw new StatusError(status.UNAVAILABLE, `the trust domain ${d.trustDomain} has no JWT authority yet; try again`);
  return bundles;
}

function encoded(message: JWTBundlesResponse): Buffer {
  return Buffer.from(JWTBundlesResponse.encode(message).finish());
}
