import { launchClaims } from "../spiffe/launch-claims.js";
import { createKeptSvids, type KeeperOptions } from "./kept-svids.js";
import type { WitSvid, WitSvidSource } from "./svid-source.js";
import type { WitAuthority } from "./wit-authority.js";

/** The daemon's WIT-SVIDs: one key and token for each identity that somebody asked for, replaced in time while somebody listens. */
export interface WitKeeper extends WitSvidSource {
  /** Looks at the clock anew, after it has jumped. */
  wake(): void;
  /** Stops the clock's calls and the subscriptions. Idempotent. */
  close(): void;
}

/** Issues from the authority for the identities that the registry knows. A WIT-SVID lives as long as an X.509-SVID (D24). */
export function createWitKeeper(options: KeeperOptions): WitKeeper {
  const { authority, registry, lifetimes } = options;
  const kept = createKeptSvids<WitSvid, WitAuthority>(
    {
      name: "WIT-SVID",
      type: "wit",
      unattended: false,
      signer: () => authority.active.wit,
      issue({ id, hint }, launchedBy, signer, now) {
        const claims = launchClaims({ launchedBy, launch: registry.launchOf(id) });
        const issued = signer.issue({ id, claims, lifetimeSeconds: lifetimes().x509Seconds }, now);
        return {
          complete: (rotateAt) => ({ id, ...issued, rotateAt, hint }),
          notAfter: issued.expiresAt,
          serial: issued.tokenId,
          record: { tokenId: issued.tokenId },
        };
      },
      validity: ({ issuedAt, expiresAt }) => ({ from: issuedAt, to: expiresAt }),
      sameContent: (one, other) => one.id.equals(other.id) && one.hint === other.hint,
    },
    options,
  );
  return { witSvid: kept.of, onWitRotation: kept.onRotation, wake: kept.wake, close: kept.close };
}
