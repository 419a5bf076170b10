import type { Clock } from "../platform/clock.js";
import { launchChainOf } from "../spiffe/launch-chain.js";
import { launchOfClaims } from "../spiffe/launch-claims.js";
import type { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";
import type { BundleRevocations } from "./bundles.js";
import type { IdentityRegistry } from "./entitlement.js";
import { certificatesAmong, type IssuedCredentials } from "./issued-credentials.js";
import type { Revocations, RevokedCertificate } from "./revocations.js";
import { serialOf } from "./serial-number.js";

/**
 * What is not believed although a bundle vouches for it: what is revoked, and what its holder's launch gives no more. An instance's name is free again after
 * its end, so its certificates and tokens are tied to the launch that had them: they are never good again, also not for the next launch of that name.
 */
export interface LaunchedCredentials extends BundleRevocations {
  /** The instance `id` has ended: nothing issued to it is believed from now on, and verifiers elsewhere learn it from the revocation list. */
  end(id: SpiffeId): void;
  /** Ends all `instances` and publishes at once what was ended. */
  close(instances: readonly SpiffeId[]): void;
}

/** Those that end within this time are signed and written together. Here they are refused at once. */
const PUBLISHED_WITHIN_MS = 200;

export function createLaunchedCredentials(options: {
  readonly trustDomain: TrustDomain;
  readonly registry: Pick<IdentityRegistry, "refusalOf" | "launchOf">;
  readonly issued: IssuedCredentials;
  readonly revocations: Revocations;
  readonly clock: Clock;
  readonly onProblem: (thrown: unknown) => void;
}): LaunchedCredentials {
  const { trustDomain, registry, issued, revocations, clock, onProblem } = options;
  let unpublished: RevokedCertificate[] = [];

  function publish(): void {
    const ended = unpublished;
    unpublished = [];
    if (ended.length === 0) return;
    try {
      revocations.revokeCertificates(ended);
    } catch (thrown) {
      onProblem(thrown);
    }
  }

  function end(id: SpiffeId): void {
    const certificates = certificatesAmong(issued.of(id.toString(), clock.now()));
    issued.forget(id.toString());
    if (certificates.length > 0 && unpublished.length === 0) clock.after(PUBLISHED_WITHIN_MS, publish);
    unpublished.push(...certificates);
  }

  function refusalOfLaunch(id: SpiffeId, [leaf]: readonly Buffer[]): string | undefined {
    if (!id.memberOf(trustDomain) || leaf === undefined) return undefined;
    const refusal = registry.refusalOf(id, launchChainOf(leaf));
    if (refusal !== undefined || registry.launchOf(id) === undefined) return refusal;
    return issued.includes(id.toString(), serialOf(leaf)) ? undefined : ofAnEarlierLaunch(id);
  }

  function refusalOfTokensLaunch(id: SpiffeId, claims: Readonly<Record<string, unknown>>): string | undefined {
    if (!id.memberOf(trustDomain)) return undefined;
    const { launchedBy, launch } = launchOfClaims(claims);
    const refusal = registry.refusalOf(id, launchedBy);
    return refusal ?? (launch === registry.launchOf(id) ? undefined : ofAnEarlierLaunch(id));
  }

  return {
    refusalOf: (id, chain) => revocations.refusalOf(id, chain) ?? refusalOfLaunch(id, chain),
    refusalOfToken: (id, claims) => revocations.refusalOf(id, []) ?? refusalOfTokensLaunch(id, claims),
    revokedBy: (authority) => revocations.revokedBy(authority),
    onChange: (listener) => revocations.onChange(listener),
    end,
    close(instances) {
      for (const id of instances) end(id);
      publish();
    },
  };
}

function ofAnEarlierLaunch(id: SpiffeId): string {
  return `it was issued to an earlier launch of ${id}, which has ended`;
}
