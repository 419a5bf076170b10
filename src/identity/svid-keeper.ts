import { isDeepStrictEqual } from "node:util";
import type { AuditLog } from "../audit/audit-log.js";
import type { IdentityConfig, Lifetimes } from "../config/config.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import { createKeptJwtSvids } from "./kept-jwt-svids.js";
import { createKeptSvids, type KeeperOptions, type KeptChange } from "./kept-svids.js";
import type { JwtSvidIssuer, X509Svid, X509SvidSource } from "./svid-source.js";
import type { X509Authority } from "./x509-authority.js";

/** The life of an identity's X.509-SVID, as the dashboard shows it. */
export type SvidChange = KeptChange<X509Svid>;

/** The daemon's SVIDs: one key and certificate for each identity, issued on first use and replaced in time. */
export interface SvidKeeper extends X509SvidSource, JwtSvidIssuer {
  /** Issued and not removed since, without issuing any; in the order of first issue. */
  readonly held: readonly { readonly identity: IdentityConfig; readonly svid: X509Svid }[];
  /** Replaces the SVID of `id`, or every held one, now. Returns the names replaced. Throws CodedError `identity-unknown`, `not-ready`. */
  rotate(id?: SpiffeId): readonly string[];
  /** Has the JWT-SVIDs of the identity `name` signed anew: a launch as it has ended. */
  forgetJwtSvids(name: string): void;
  /** Called after each issue, replacement and removal of any X.509-SVID; the returned function unsubscribes. */
  onChange(listener: (change: SvidChange) => void): () => void;
  /** Looks at the clock anew, after it has jumped: what is due is replaced at once. */
  wake(): void;
  /** Stops the clock's calls and the subscriptions. Idempotent. */
  close(): void;
}

export interface SvidKeeperOptions extends KeeperOptions {
  readonly lifetimes: () => Lifetimes;
  readonly audit: Pick<AuditLog, "append" | "appendInTurn">;
  /** `iss` of JWT-SVIDs, read at each issue. */
  readonly jwtIssuer?: () => string | undefined;
}

/** Issues from the authority for the identities that the registry knows. */
export function createSvidKeeper(options: SvidKeeperOptions): SvidKeeper {
  const { authority, lifetimes } = options;
  const kept = createKeptSvids<X509Svid, X509Authority>(
    {
      name: "SVID",
      type: "x509",
      unattended: true,
      signer: () => authority.active.x509,
      issue({ id, dnsNames, hint }, launchedBy, signer, now) {
        const issued = signer.issue({ id, dnsNames, launchedBy, lifetimeSeconds: lifetimes().x509Seconds }, now);
        const { notAfter, serial } = issued;
        return { complete: (rotateAt) => ({ id, ...issued, rotateAt, hint }), notAfter, serial, record: { serial } };
      },
      validity: ({ notBefore, notAfter }) => ({ from: notBefore, to: notAfter }),
      sameContent: (one, other) =>
        one.id.equals(other.id) && one.hint === other.hint && isDeepStrictEqual(one.dnsNames, other.dnsNames),
    },
    options,
  );

  const tokens = createKeptJwtSvids(options);

  return {
    x509Svid: kept.of,
    onRotation: kept.onRotation,
    async jwtSvid(id, audiences, launchedBy = [], delivery) {
      const { svid, again, recorded } = tokens.of(kept.identityOf(id), audiences, launchedBy);
      const delivered = delivery?.(svid, again);
      if (recorded !== undefined) await Promise.all([recorded, delivered]);
      else await delivered;
      return svid;
    },
    forgetJwtSvids: (name) => tokens.forget(name),
    get held() {
      return kept.held;
    },
    rotate(id) {
      if (id !== undefined && !kept.held.some(({ identity }) => identity.id.equals(id))) kept.of(id);
      const some = kept.held.filter(({ identity }) => id === undefined || identity.id.equals(id));
      for (const { identity, launchedBy } of some) kept.replace(kept.identityOf(identity.id), launchedBy);
      const names = some.map(({ identity }) => identity.name);
      return id === undefined ? [...new Set(names)] : [kept.identityOf(id).name];
    },
    onChange: kept.onChange,
    wake: kept.wake,
    close() {
      tokens.close();
      kept.close();
    },
  };
}
