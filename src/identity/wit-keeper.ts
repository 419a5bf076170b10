import type { AuditLog } from "../audit/audit-log.js";
import { CodedError, messageOf } from "../coded-error.js";
import type { IdentityConfig, Lifetimes } from "../config/config.js";
import type { Clock } from "../platform/clock.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import type { IdentityRegistry } from "./entitlement.js";
import type { IssuedCredentials } from "./issued-credentials.js";
import { createListeners, type Listeners } from "./listeners.js";
import { onceAt } from "./once-at.js";
import type { WitSvid, WitSvidSource } from "./svid-source.js";
import type { TrustDomainAuthority } from "./trust-domain-authority.js";
import type { WitAuthority } from "./wit-authority.js";

/** The daemon's WIT-SVIDs: one key and token for each identity that somebody asked for, replaced in time while somebody listens. */
export interface WitKeeper extends WitSvidSource {
  /** Looks at the clock anew, after it has jumped. */
  wake(): void;
  /** Stops the clock's calls and the subscriptions. Idempotent. */
  close(): void;
}

export interface WitKeeperOptions {
  readonly authority: TrustDomainAuthority;
  readonly registry: Pick<IdentityRegistry, "find" | "isRevoked" | "onChange">;
  /** Remembers what is issued, for whoever revokes it. */
  readonly issued?: Pick<IssuedCredentials, "add">;
  /** Read at each issue. A WIT-SVID lives as long as an X.509-SVID (D24). */
  readonly lifetimes: () => Pick<Lifetimes, "x509Seconds">;
  readonly clock: Clock;
  readonly audit: Pick<AuditLog, "append">;
  /** In [0, 1), for the jitter of rotation. */
  readonly random?: () => number;
  /** Told when a replacement failed (it is tried again while the SVID at hand stays valid) and when a listener throws. */
  readonly onProblem?: (thrown: unknown) => void;
}

interface Held {
  readonly identity: IdentityConfig;
  readonly svid: WitSvid;
  readonly signedBy: WitAuthority;
}

/** Rotation at half of life ±10 %, as the X.509-SVIDs. */
const JITTER = 0.1;
/** Replacements made in one turn of the event loop. */
const REPLACEMENTS_A_TURN = 16;
/** Sweeps are at least this far apart, except while one is being continued. */
const SHORTEST_SWEEP_MS = 200;
const RETRY_MS = 5_000;

/** Issues from `authority` for the identities that `registry` knows. Every issue is recorded before the SVID is handed out (D20). */
export function createWitKeeper(options: WitKeeperOptions): WitKeeper {
  const { authority, registry, lifetimes, clock, audit, random = Math.random } = options;
  const held = new Map<string, Held>();
  const listeners = new Map<string, Listeners<WitSvid>>();
  const retryAt = new Map<string, number>();
  let sweepAt = Number.POSITIVE_INFINITY;
  let cancelSweep = () => {};
  let closed = false;

  const unsubscribe = [
    authority.onActivation(() => sweepAfter(0)),
    authority.onDistrust(sweepNow),
    registry.onChange(() => {
      for (const [key, { identity }] of held) {
        if (registry.find(key) === undefined || registry.isRevoked(identity.id)) forget(key);
      }
      sweepAfter(0);
    }),
  ];

  function forget(key: string): void {
    held.delete(key);
    retryAt.delete(key);
  }

  function identityOf(id: SpiffeId): IdentityConfig {
    const identity = registry.find(id.toString());
    if (identity === undefined) throw new CodedError("identity-unknown", `no identity ${id} is configured`);
    if (registry.isRevoked(id)) {
      throw new CodedError("identity-revoked", `${id} is revoked`, { hint: `agentid revoke --undo ${identity.name}` });
    }
    return identity;
  }

  function isValid({ svid, signedBy }: Held, now: number): boolean {
    return authority.vouches(signedBy.keyId) && now >= svid.issuedAt.getTime() && now < svid.expiresAt.getTime();
  }

  function isFresh(one: Held, now: number): boolean {
    return isValid(one, now) && now < one.svid.rotateAt.getTime() && one.signedBy === authority.active.wit;
  }

  /** Issues, records, then keeps and announces. Throws CodedError `not-ready`, with its cause. */
  function replace(identity: IdentityConfig): WitSvid {
    const key = identity.id.toString();
    const change = held.has(key) ? "svid.rotated" : "svid.issued";
    const next = issue(identity, change);
    held.set(key, next);
    retryAt.delete(key);
    listeners.get(key)?.notify(next.svid);
    if (listeners.has(key)) sweepAfter(next.svid.rotateAt.getTime() - clock.now());
    return next.svid;
  }

  function issue(identity: IdentityConfig, change: "svid.issued" | "svid.rotated"): Held {
    try {
      const now = clock.now();
      const signedBy = authority.active.wit;
      const { id, hint, name } = identity;
      const { token, privateJwk, issuedAt, expiresAt, tokenId } = signedBy.issue(
        { id, lifetimeSeconds: lifetimes().x509Seconds },
        now,
      );
      const halfLife = (expiresAt.getTime() - now) / 2;
      // As the X.509-SVIDs: what ends with its authority is not worth replacing before.
      const endsWithAuthority = expiresAt.getTime() + 1_000 > signedBy.notAfter.getTime();
      const rotateAt = new Date(now + (endsWithAuthority ? 2 : 1 + JITTER * (2 * random() - 1)) * halfLife);
      audit.append(change, {
        type: "wit",
        identity: name,
        spiffeId: id.toString(),
        tokenId,
        notAfter: expiresAt.toISOString(),
        authority: signedBy.keyId,
      });
      const credential = { serial: tokenId, audience: undefined, notAfter: expiresAt, authority: signedBy.keyId };
      options.issued?.add(id.toString(), { type: "wit", ...credential }, now);
      return { identity, svid: { id, token, privateJwk, issuedAt, expiresAt, rotateAt, hint, tokenId }, signedBy };
    } catch (cause) {
      throw new CodedError("not-ready", `no WIT-SVID can be issued for ${identity.name}: ${messageOf(cause)}`, {
        cause,
      });
    }
  }

  /** Whatever failed before, and whatever was planned under another time, is looked at again now. */
  function sweepNow(): void {
    retryAt.clear();
    cancelSweep();
    sweepAt = Number.POSITIVE_INFINITY;
    sweepAfter(0);
  }

  function sweepAfter(delayMs: number): void {
    const at = clock.now() + delayMs;
    if (closed || at >= sweepAt) return;
    cancelSweep();
    sweepAt = at;
    cancelSweep = onceAt(clock, at, sweep);
  }

  /** Replaces what is due and listened to, a few at a time. What nobody listens to is replaced when it is asked for. */
  function sweep(): void {
    sweepAt = Number.POSITIVE_INFINITY;
    const now = clock.now();
    const listened = () => [...listeners.keys()].flatMap((key) => held.get(key) ?? []);
    const due = listened().filter((one) => isDue(one, now));
    for (const { identity } of due.slice(0, REPLACEMENTS_A_TURN)) tryReplace(identity);
    if (due.length > REPLACEMENTS_A_TURN) {
      sweepAfter(0);
      return;
    }
    const next = listened().reduce((earliest, one) => Math.min(earliest, nextAttempt(one)), Number.POSITIVE_INFINITY);
    if (next < Number.POSITIVE_INFINITY) sweepAfter(Math.max(next - now, SHORTEST_SWEEP_MS));
  }

  function nextAttempt({ identity, svid }: Held): number {
    return retryAt.get(identity.id.toString()) ?? svid.rotateAt.getTime();
  }

  function isDue(one: Held, now: number): boolean {
    if (now < (retryAt.get(one.identity.id.toString()) ?? 0)) return false;
    try {
      return !isFresh(one, now);
    } catch {
      // The authority cannot sign: due, so that the attempt reports why.
      return true;
    }
  }

  function tryReplace({ id }: IdentityConfig): void {
    try {
      replace(identityOf(id));
    } catch (thrown) {
      retryAt.set(id.toString(), clock.now() + RETRY_MS);
      options.onProblem?.(thrown);
    }
  }

  return {
    witSvid(id) {
      const identity = identityOf(id);
      const one = held.get(id.toString());
      const now = clock.now();
      if (one === undefined || !isValid(one, now) || one.identity.hint !== identity.hint) return replace(identity);
      if (isDue(one, now)) tryReplace(identity);
      return held.get(id.toString())?.svid ?? one.svid;
    },
    onWitRotation(id, listener) {
      const key = id.toString();
      const ofId = listeners.get(key) ?? createListeners<WitSvid>(options.onProblem);
      listeners.set(key, ofId);
      const stop = ofId.add(listener);
      const one = held.get(key);
      if (one !== undefined) sweepAfter(one.svid.rotateAt.getTime() - clock.now());
      return () => {
        stop();
        if (ofId.size === 0 && listeners.get(key) === ofId) listeners.delete(key);
      };
    },
    wake: sweepNow,
    close() {
      closed = true;
      cancelSweep();
      for (const stop of unsubscribe) stop();
    },
  };
}
