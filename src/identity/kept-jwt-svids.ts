import type { AuditLog } from "../audit/audit-log.js";
import { codeOf } from "../coded-error.js";
import type { IdentityConfig, Lifetimes } from "../config/config.js";
import type { Clock } from "../platform/clock.js";
import type { IdentityRegistry } from "./entitlement.js";
import type { IssuedCredentials } from "./issued-credentials.js";
import type { JwtAuthority } from "./jwt-authority.js";
import { notReady } from "./kept-svids.js";
import type { JwtSvid } from "./svid-source.js";
import type { TrustDomainAuthority } from "./trust-domain-authority.js";

export interface KeptJwtSvidsOptions {
  readonly authority: Pick<TrustDomainAuthority, "active">;
  readonly registry: Pick<IdentityRegistry, "onChange">;
  /** Read at each hand-out: a token of another lifetime or issuer is not handed out again. */
  readonly lifetimes: () => Pick<Lifetimes, "jwtSeconds">;
  readonly jwtIssuer?: (() => string | undefined) | undefined;
  readonly issued?: Pick<IssuedCredentials, "add"> | undefined;
  readonly clock: Clock;
  readonly audit: Pick<AuditLog, "appendInTurn">;
}

/** A token for one hand-out. */
export interface HandedJwtSvid {
  readonly svid: JwtSvid;
  /** It was handed out before, for the same identity, audiences and launchers. */
  readonly again: boolean;
  /** Resolves when the issue is in the record; undefined if it has been. Nobody has the token before. Rejects with CodedError `not-ready`. */
  readonly recorded: Promise<void> | undefined;
}

/**
 * JWT-SVIDs by identity, list of audiences and chain of launchers, each handed out until half of its life is over, as SPIRE's agent does. What changes who gets which
 * identity, who signs, or what a token says, has them signed anew; so has a clock that is not between the token's issue and the half of its life.
 */
export interface KeptJwtSvids {
  /** `launchedBy`: SPIFFE IDs of the agents that launched its holder, nearest first. Throws CodedError `audience-missing`, `not-ready`. */
  of(identity: IdentityConfig, audiences: readonly string[], launchedBy: readonly string[]): HandedJwtSvid;
  /** Forgets the tokens of the identity `name`. */
  forget(name: string): void;
  /** Ends the subscription. */
  close(): void;
}

/** As many as SPIRE's agent keeps; the oldest go first. */
const MOST_KEPT = 1_000;
/** Bytes of a token with its audiences in it. Whoever names that many pays for the signature each time. */
const LONGEST_KEPT = 4_096;

/** What a token is signed by and with. */
interface Terms {
  readonly signer: JwtAuthority;
  readonly lifetimeSeconds: number;
  readonly issuer: string | undefined;
}

interface Held extends Terms {
  readonly identity: IdentityConfig;
  readonly svid: JwtSvid;
  /** ms: handed out again from here … */
  readonly from: number;
  /** … up to here. */
  readonly until: number;
  recorded: Promise<void> | undefined;
}

export function createKeptJwtSvids(options: KeptJwtSvidsOptions): KeptJwtSvids {
  const { authority, registry, lifetimes, clock, audit } = options;
  const held = new Map<string, Held>();
  // Also what is revoked, or has ended, and comes back later under the same name.
  const unsubscribe = registry.onChange(() => held.clear());

  function terms(): Terms {
    return {
      signer: authority.active.jwt,
      lifetimeSeconds: lifetimes().jwtSeconds,
      issuer: options.jwtIssuer?.(),
    };
  }

  function sign(identity: IdentityConfig, audiences: readonly string[], by: Terms, now: number): Held {
    const { id, hint } = identity;
    const { token, expiresAt } = by.signer.issue(
      { id, audiences, lifetimeSeconds: by.lifetimeSeconds, issuer: by.issuer },
      now,
    );
    const svid = { id, token, expiresAt, hint };
    const credential = { serial: undefined, audience: audiences, notAfter: expiresAt, authority: by.signer.keyId };
    options.issued?.add(id.toString(), { type: "jwt", ...credential }, now);
    return { ...by, identity, svid, from: now, until: (now + expiresAt.getTime()) / 2, recorded: undefined };
  }

  /** Until its issue is in the record a token may be handed to others who wait for that too; if it never is, to nobody more. */
  function record(key: string, one: Held, audiences: readonly string[], launchedBy: readonly string[]): void {
    const { identity, svid, signer } = one;
    const appended = audit.appendInTurn("svid.issued", {
      type: "jwt",
      identity: identity.name,
      spiffeId: svid.id.toString(),
      ...(launchedBy.length > 0 && { launchedBy }),
      audience: audiences,
      notAfter: svid.expiresAt.toISOString(),
      authority: signer.keyId,
    });
    one.recorded = appended.then(
      () => {
        one.recorded = undefined;
      },
      (cause: unknown) => {
        if (held.get(key) === one) held.delete(key);
        throw notReady("SVID", identity, cause);
      },
    );
  }

  function keep(key: string, one: Held): void {
    // Behind all others: the first in the map is the oldest.
    held.delete(key);
    if (one.svid.token.length > LONGEST_KEPT) return;
    held.set(key, one);
    if (held.size <= MOST_KEPT) return;
    for (const oldest of held.keys()) {
      held.delete(oldest);
      return;
    }
  }

  return {
    of(identity, audiences, launchedBy) {
      const key = keyOf(identity, audiences, launchedBy);
      try {
        const now = clock.now();
        const wanted = terms();
        const found = held.get(key);
        if (found !== undefined && isFresh(found, wanted, now)) {
          return { svid: found.svid, again: true, recorded: found.recorded };
        }
        const signed = sign(identity, audiences, wanted, now);
        keep(key, signed);
        record(key, signed, audiences, launchedBy);
        return { svid: signed.svid, again: false, recorded: signed.recorded };
      } catch (thrown) {
        if (codeOf(thrown) === "audience-missing") throw thrown;
        throw notReady("SVID", identity, thrown);
      }
    },
    forget(name) {
      for (const [key, { identity }] of held) if (identity.name === name) held.delete(key);
    },
    close: unsubscribe,
  };
}

/** Every reader looks at the clock and at who signs: no timer and no message comes too late. */
function isFresh(one: Held, wanted: Terms, now: number): boolean {
  return (
    now >= one.from &&
    now < one.until &&
    one.signer === wanted.signer &&
    one.lifetimeSeconds === wanted.lifetimeSeconds &&
    one.issuer === wanted.issuer
  );
}

/** Different for different lists, whatever characters are in them. */
function keyOf({ name }: IdentityConfig, audiences: readonly string[], launchedBy: readonly string[]): string {
  const chain = launchedBy.length === 0 ? "" : JSON.stringify(launchedBy);
  return `${name} ${JSON.stringify(audiences)}${chain}`;
}
