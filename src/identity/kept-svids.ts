import type { AuditFields, AuditLog } from "../audit/audit-log.js";
import { CodedError, messageOf } from "../coded-error.js";
import type { IdentityConfig, Lifetimes } from "../config/config.js";
import type { Clock } from "../platform/clock.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import type { IdentityRegistry } from "./entitlement.js";
import type { IssuedCredential, IssuedCredentials } from "./issued-credentials.js";
import { createListeners, type Listeners } from "./listeners.js";
import { onceAt } from "./once-at.js";
import type { TrustDomainAuthority } from "./trust-domain-authority.js";

/** What SVIDs of every kind are kept with. */
export interface KeeperOptions {
  readonly authority: TrustDomainAuthority;
  readonly registry: Pick<IdentityRegistry, "find" | "isRevoked" | "launchOf" | "onChange">;
  /** Remembers what is issued, for whoever revokes it. */
  readonly issued?: Pick<IssuedCredentials, "add">;
  /** Read at each issue, so that a reload counts for the next one. */
  readonly lifetimes: () => Pick<Lifetimes, "x509Seconds">;
  readonly clock: Clock;
  readonly audit: Pick<AuditLog, "append">;
  /** In [0, 1), for the jitter of rotation. */
  readonly random?: () => number;
  /** Told when a replacement failed (it is tried again while the SVID at hand stays valid) and when a listener throws. */
  readonly onProblem?: (thrown: unknown) => void;
}

/** What of an SVID says when it is replaced, whatever it is otherwise. */
interface Replaceable {
  readonly id: SpiffeId;
  readonly rotateAt: Date;
}

/** The part of an authority that signs one kind of SVID. */
interface Signer {
  readonly keyId: string;
  readonly notAfter: Date;
}

/** One kind of SVID. */
export interface SvidKind<Svid extends Replaceable, By extends Signer> {
  /** For messages: `SVID`. */
  readonly name: string;
  readonly type: IssuedCredential["type"];
  /** Whether it is replaced in time also while nobody listens, or only when it is asked for. */
  readonly unattended: boolean;
  /** What signs now. Throws if nothing does. */
  signer(): By;
  /** Makes one for `identity`, whose holder the agents `launchedBy` launched, nearest first, at `now` (ms). */
  issue(identity: IdentityConfig, launchedBy: readonly string[], signer: By, now: number): NewSvid<Svid>;
  validity(svid: Svid): { readonly from: Date; readonly to: Date };
  /** Whether both would give the same SVID and hint. */
  sameContent(one: IdentityConfig, other: IdentityConfig): boolean;
}

/** As it was signed, before it is planned when to replace it. */
interface NewSvid<Svid> {
  readonly complete: (rotateAt: Date) => Svid;
  readonly notAfter: Date;
  /** Its name in the record: a serial number or `jti`. */
  readonly serial: string;
  /** What the record says of it besides whose it is and how long. */
  readonly record: AuditFields;
}

/** The life of an identity's SVID. */
export interface KeptChange<Svid> {
  readonly change: "issued" | "rotated" | "removed";
  readonly identity: IdentityConfig;
  readonly svid: Svid;
}

/**
 * One SVID of a kind for each identity, issued on first use and replaced in time. Processes with one identity share it, unless other agents launched
 * them: `launchedBy`, SPIFFE IDs of those, nearest first.
 */
export interface KeptSvids<Svid> {
  /** The SVID valid now for `id`, issued on first use. Throws CodedError `identity-unknown`, `identity-revoked`, `not-ready`. */
  of(id: SpiffeId, launchedBy?: readonly string[]): Svid;
  /** The configured identity that may have one. Throws CodedError `identity-unknown`, `identity-revoked`. */
  identityOf(id: SpiffeId): IdentityConfig;
  /** Issued and not removed since, in the order of first issue. */
  readonly held: readonly {
    readonly identity: IdentityConfig;
    readonly launchedBy: readonly string[];
    readonly svid: Svid;
  }[];
  /** Issues another one now. Throws CodedError `not-ready`. */
  replace(identity: IdentityConfig, launchedBy: readonly string[]): Svid;
  /** Called after each replacement of `id`'s SVID; the returned function unsubscribes. */
  onRotation(id: SpiffeId, listener: (svid: Svid) => void): () => void;
  /** Called after each issue, replacement and removal; the returned function unsubscribes. */
  onChange(listener: (change: KeptChange<Svid>) => void): () => void;
  /** Looks at the clock anew, after it has jumped: what is due is replaced at once. */
  wake(): void;
  /** Stops the clock's calls and the subscriptions. Idempotent. */
  close(): void;
}

interface Held<Svid, By> {
  readonly identity: IdentityConfig;
  readonly launchedBy: readonly string[];
  readonly svid: Svid;
  readonly signedBy: By;
  /** Whether anybody has taken this one since it was made. */
  taken: boolean;
}

/** Rotation at half of life ±10 %, so that many identities issued together do not stay together (as SPIRE). */
const JITTER = 0.1;
/** Replacements made in one turn of the event loop, about 3 ms: calls go on between the turns of a mass rotation. */
export const REPLACEMENTS_A_TURN = 16;
/** SVIDs looked at in one turn, most of which are usually not due: under 1 ms. */
const LOOKS_A_TURN = 500;
/** Sweeps are at least this far apart, except while one is being continued. */
const SHORTEST_SWEEP_MS = 200;
const RETRY_MS = 5_000;

/** Keeps SVIDs of `kind` for the identities that the registry knows. Every issue is recorded before the SVID is handed out (D20). */
export function createKeptSvids<Svid extends Replaceable, By extends Signer>(
  kind: SvidKind<Svid, By>,
  options: KeeperOptions,
): KeptSvids<Svid> {
  const { authority, registry, clock, audit, random = Math.random } = options;
  const held = new Map<string, Held<Svid, By>>();
  const listeners = new Map<string, Listeners<Svid>>();
  const changeListeners = createListeners<KeptChange<Svid>>(options.onProblem);
  /** Ids that had an SVID before: for their listeners the next one is a replacement, even if the identity was gone in between. */
  const known = new Set<string>();
  const retryAt = new Map<string, number>();
  /** What the sweep under way has still to look at. */
  let unseen: string[] = [];
  let sweepAt = Number.POSITIVE_INFINITY;
  let cancelSweep = () => {};
  let closed = false;

  const unsubscribe = [
    authority.onActivation(sweepAnew),
    authority.onDistrust(wake),
    registry.onChange(() => {
      dropRemoved();
      sweepAnew();
    }),
  ];

  function identityOf(id: SpiffeId): IdentityConfig {
    const identity = registry.find(id.toString());
    if (identity === undefined) throw new CodedError("identity-unknown", `no identity ${id} is configured`);
    if (registry.isRevoked(id)) {
      throw new CodedError("identity-revoked", `${id} is revoked`, { hint: `agentid revoke --undo ${identity.name}` });
    }
    return identity;
  }

  function isValid(svid: Svid): boolean {
    const now = clock.now();
    const { from, to } = kind.validity(svid);
    return now >= from.getTime() && now < to.getTime();
  }

  /** Valid, not yet due, of the authority that signs now, and of what is configured now. */
  function isFresh({ identity, svid, signedBy }: Held<Svid, By>, wanted: IdentityConfig): boolean {
    return (
      isValid(svid) &&
      clock.now() < svid.rotateAt.getTime() &&
      signedBy === kind.signer() &&
      (identity === wanted || kind.sameContent(identity, wanted))
    );
  }

  function isUsable({ identity, svid, signedBy }: Held<Svid, By>, wanted: IdentityConfig): boolean {
    return isValid(svid) && authority.vouches(signedBy.keyId) && kind.sameContent(identity, wanted);
  }

  /** Issues, records, then keeps and announces. */
  function replace(identity: IdentityConfig, launchedBy: readonly string[]): Svid {
    const id = identity.id.toString();
    const key = keyOf(identity.id, launchedBy);
    const change = held.has(key) ? "rotated" : "issued";
    const next = issue(identity, launchedBy, change);
    held.set(key, next);
    retryAt.delete(key);
    if (kind.unattended || listeners.has(id)) sweepAfter(next.svid.rotateAt.getTime() - clock.now());
    if (known.has(key)) listeners.get(id)?.notify(next.svid);
    known.add(key);
    changeListeners.notify({ change, identity, svid: next.svid });
    return next.svid;
  }

  function issue(
    identity: IdentityConfig,
    launchedBy: readonly string[],
    change: "issued" | "rotated",
  ): Held<Svid, By> {
    try {
      const now = clock.now();
      const signedBy = kind.signer();
      const { complete, notAfter, serial, record } = kind.issue(identity, launchedBy, signedBy, now);
      const id = identity.id.toString();
      audit.append(change === "issued" ? "svid.issued" : "svid.rotated", {
        type: kind.type,
        identity: identity.name,
        spiffeId: id,
        ...(launchedBy.length > 0 && { launchedBy }),
        ...record,
        notAfter: notAfter.toISOString(),
        authority: signedBy.keyId,
      });
      const credential = { type: kind.type, serial, audience: undefined, notAfter, authority: signedBy.keyId };
      options.issued?.add(id, credential, now);
      return { identity, launchedBy, svid: complete(rotationOf(notAfter, signedBy, now)), signedBy, taken: false };
    } catch (cause) {
      throw notReady(kind.name, identity, cause);
    }
  }

  function rotationOf(notAfter: Date, signedBy: By, now: number): Date {
    const halfLife = (notAfter.getTime() - now) / 2;
    // What ends with its authority is not worth replacing before: the next one would end then too. Another authority replaces all.
    const endsWithAuthority = notAfter.getTime() + 1_000 > signedBy.notAfter.getTime();
    return new Date(now + halfLife * (endsWithAuthority ? 2 : 1 + JITTER * (2 * random() - 1)));
  }

  function dropRemoved(): void {
    for (const [key, { identity, svid }] of [...held]) {
      if (registry.find(identity.id.toString()) !== undefined && !registry.isRevoked(identity.id)) continue;
      held.delete(key);
      retryAt.delete(key);
      changeListeners.notify({ change: "removed", identity, svid });
    }
  }

  /** Whatever failed before, and whatever was planned under another time, is looked at again now. */
  function wake(): void {
    retryAt.clear();
    cancelSweep();
    sweepAt = Number.POSITIVE_INFINITY;
    sweepAnew();
  }

  /** What a sweep under way has seen already may be due now. */
  function sweepAnew(): void {
    unseen = [];
    sweepAfter(0);
  }

  function sweepAfter(delayMs: number): void {
    const at = clock.now() + delayMs;
    if (closed || at >= sweepAt) return;
    cancelSweep();
    sweepAt = at;
    cancelSweep = onceAt(clock, at, sweep);
  }

  /** Replaces what is due, those with listeners first, a few at a time; when all have been looked at, plans when to look again. */
  function sweep(): void {
    sweepAt = Number.POSITIVE_INFINITY;
    if (unseen.length === 0) unseen = followed().reverse();
    for (let looks = 0, replacements = 0; looks < LOOKS_A_TURN && replacements < REPLACEMENTS_A_TURN; looks++) {
      const key = unseen.pop();
      if (key === undefined) break;
      if (!isDue(key)) continue;
      replaceOrForget(key);
      replacements++;
    }
    if (unseen.length > 0) {
      sweepAfter(0);
      return;
    }
    let next = Number.POSITIVE_INFINITY;
    for (const key of followed()) {
      const rotateAt = held.get(key)?.svid.rotateAt.getTime() ?? Number.POSITIVE_INFINITY;
      next = Math.min(next, retryAt.get(key) ?? rotateAt);
    }
    if (next < Number.POSITIVE_INFINITY) sweepAfter(Math.max(next - clock.now(), SHORTEST_SWEEP_MS));
  }

  /** Keys of the SVIDs that are replaced without being asked for, those with listeners first. */
  function followed(): string[] {
    const listenedTo: string[] = [];
    const others: string[] = [];
    for (const [key, one] of held) (isListenedTo(one) ? listenedTo : others).push(key);
    return kind.unattended ? [...listenedTo, ...others] : listenedTo;
  }

  function isListenedTo({ identity }: Held<Svid, By>): boolean {
    return listeners.has(identity.id.toString());
  }

  /**
   * What one launch had is gone with it: it is made again only if somebody listens and has taken the last one. Who listens to an identity is told of
   * every replacement, and takes the one that is his.
   */
  function replaceOrForget(key: string): void {
    const one = held.get(key);
    if (one !== undefined && one.launchedBy.length > 0 && !(one.taken && isListenedTo(one))) held.delete(key);
    else tryReplace(key);
  }

  function isDue(key: string): boolean {
    const one = held.get(key);
    const wanted = one && registry.find(one.identity.id.toString());
    if (one === undefined || wanted === undefined || clock.now() < (retryAt.get(key) ?? 0)) return false;
    try {
      return !isFresh(one, wanted);
    } catch {
      // The authority cannot sign: due, so that the attempt reports why.
      return true;
    }
  }

  function tryReplace(key: string): void {
    const one = held.get(key);
    const wanted = one && registry.find(one.identity.id.toString());
    if (one === undefined || wanted === undefined) return;
    try {
      replace(wanted, one.launchedBy);
    } catch (thrown) {
      retryAt.set(key, clock.now() + RETRY_MS);
      options.onProblem?.(thrown);
    }
  }

  return {
    of(id, launchedBy = []) {
      const identity = identityOf(id);
      const key = keyOf(id, launchedBy);
      const one = held.get(key);
      if (one === undefined || !isUsable(one, identity)) replace(identity, launchedBy);
      else if (isDue(key)) tryReplace(key);
      const taken = held.get(key);
      if (taken === undefined) throw notReady(kind.name, identity, "it was withdrawn while it was made");
      taken.taken = true;
      return taken.svid;
    },
    identityOf,
    get held() {
      return [...held.values()].map(({ identity, launchedBy, svid }) => ({ identity, launchedBy, svid }));
    },
    replace,
    onRotation(id, listener) {
      const key = id.toString();
      const ofId = listeners.get(key) ?? createListeners<Svid>(options.onProblem);
      listeners.set(key, ofId);
      const stop = ofId.add(listener);
      const due = [...held.values()].filter(({ identity }) => identity.id.equals(id)).map(({ svid }) => svid.rotateAt);
      if (due.length > 0) sweepAfter(Math.min(...due.map((at) => at.getTime())) - clock.now());
      return () => {
        stop();
        if (ofId.size === 0 && listeners.get(key) === ofId) listeners.delete(key);
      };
    },
    onChange: (listener) => changeListeners.add(listener),
    wake,
    close() {
      closed = true;
      cancelSweep();
      for (const stop of unsubscribe) stop();
    },
  };
}

/** No SPIFFE ID holds a blank. */
function keyOf(id: SpiffeId, launchedBy: readonly string[]): string {
  return launchedBy.length === 0 ? id.toString() : [id, ...launchedBy].join(" ");
}

export function notReady(what: string, identity: IdentityConfig, cause: unknown): CodedError {
  return new CodedError("not-ready", `no ${what} can be issued for ${identity.name}: ${messageOf(cause)}`, { cause });
}
