import { SpiffeId, TrustDomain } from "../../spiffe/spiffe-id.js";

/** Who may be at the other end. Made by `memberOf`, `oneOf` and `anyId` only, so that it can say itself what it wants. */
export interface Authorizer {
  allows(id: SpiffeId): boolean;
  /** For messages: "a member of shop.local". */
  readonly wanted: string;
}

/** Every workload of `trustDomain` (`shop.local` or `spiffe://shop.local`). Throws SpiffeIdError. */
export function memberOf(trustDomain: TrustDomain | string): Authorizer {
  const name = TrustDomain.parse(trustDomain.toString());
  return { allows: (id) => id.memberOf(name), wanted: `a member of ${name}` };
}

/** These workloads and no other. Throws SpiffeIdError. */
export function oneOf(...ids: readonly [SpiffeId | string, ...(SpiffeId | string)[]]): Authorizer {
  const wanted = ids.map((id) => SpiffeId.parse(id.toString()));
  return { allows: (id) => wanted.some((one) => one.equals(id)), wanted: wanted.join(" or ") };
}

/** Whoever has an SVID of a trust domain whose bundle is held, federated ones included: for callers that decide by the peer's ID themselves. */
export function anyId(): Authorizer {
  return { allows: () => true, wanted: "any workload of a trusted domain" };
}
