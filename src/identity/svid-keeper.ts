import { isDeepStrictEqual } from "node:util";
import type { AuditLog } from "../audit/audit-log.js";
import { CodedError, codeOf, messageOf } from "../coded-error.js";
import type { IdentityConfig, Lifetimes } from "../config/config.js";
import type { Clock } from "../platform/clock.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import type { IdentityRegistry } from "./entitlement.js";
import type { IssuedCredentials } from "./issued-credentials.js";
import { createListeners, type Listeners } from "./listeners.js";
import { onceAt } from "./once-at.js";
import type { JwtSvidIssuer, X509Svid, X509SvidSource } from "./svid-source.js";
import type { TrustDomainAuthority } from "./trust-domain-authority.js";
import type { X509Authority } from "./x509-authority.js";

/** The life of an identity's X.509-SVID, as the dashboard shows it. */
export interface SvidChange {
  readonly change: "issued" | "rotated" | "removed";
  readonly identity: IdentityConfig;
  readonly svid: X509Svid;
}

/** The daemon's SVIDs: one key and certificate for each identity, issued on first use and replaced in time. */
export interface SvidKeeper extends X509SvidSource, JwtSvidIssuer {
  /** Issued and not removed since, without issuing any; in the order of first issue. */
  readonly held: readonly { readonly identity: IdentityConfig; readonly svid: X509Svid }[];
  /** Replaces the SVID of `id`, or every held one, now. Returns the names replaced. Throws CodedError `identity-unknown`, `not-ready`. */
  rotate(id?: SpiffeId): readonly string[];
  /** Called after each issue, replacement and removal of any X.509-SVID; the returned function unsubscribes. */
  onChange(listener: (change: SvidChange) => void): () => void;
  /** Looks at the clock anew, after it has jumped: what is due is replaced at once. */
  wake(): void;
  /** Stops the clock's calls and the subscriptions. Idempotent. */
  close(): void;
}

export interface SvidKeeperOptions {
  readonly authority: TrustDomainAuthority;
  readonly registry: Pick<IdentityRegistry, "find" | "isRevoked" | "onChange">;
  /** Remembers what is issued, for whoever revokes it. */
  readonly issued?: Pick<IssuedCredentials, "add">;
  /** Read at each issue, so that a reload counts for the next one. */
  readonly lifetimes: () => Lifetimes;
  /** `iss` of JWT-SVIDs, read at each issue. */
  readonly jwtIssuer?: () => string | undefined;
  readonly clock: Clock;
  readonly audit: AuditLog;
  /** In [0, 1), for the jitter of rotation. */
  readonly random?: () => number;
  /** Told when a replacement failed (it is tried again while the SVID at hand stays valid) and when a listener throws. */
  readonly onProblem?: (thrown: unknown) => void;
}

interface Held {
  readonly identity: IdentityConfig;
  readonly launchedBy: readonly string[];
  readonly svid: X509Svid;
  readonly signedBy: X509Authority;
}

/** Rotation at half of life ±10 %, so that many identities issued together do not stay together (as SPIRE). */
const JITTER = 0.1;
/** Replacements made in one turn of the event loop, about 3 ms: calls go on between the turns of a mass rotation. */
const REPLACEMENTS_A_TURN = 16;
/** Sweeps are at least this far apart, except while one is being continued. */
const SHORTEST_SWEEP_MS = 200;
const RETRY_MS = 5_000;

/** Issues from `authority` for the identities that `registry` knows. Every issue is recorded before the SVID is handed out (D20). */
export function createSvidKeeper(options: SvidKeeperOptions): SvidKeeper {
  const { authority, registry, lifetimes, clock, audit, random = Math.random } = options;
  const held = new Map<string, Held>();
  const listeners = new Map<string, Listeners<X509Svid>>();
  const changeListeners = createListeners<SvidChange>(options.onProblem);
  /** Ids that had an SVID before: for their listeners the next one is a replacement, even if the identity was gone in between. */
  const known = new Set<string>();
  const retryAt = new Map<string, number>();
  /** Found due and not yet replaced. */
  let pending: string[] = [];
  let sweepAt = Number.POSITIVE_INFINITY;
  let cancelSweep = () => {};
  let closed = false;

  const unsubscribe = [
    authority.onActivation(() => sweepSoon(0)),
    authority.onDistrust(sweepNow),
    registry.onChange(() => {
      dropRemoved();
      sweepSoon(0);
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

  /** Valid, not yet due, of the authority that signs now, and of what is configured now. */
  function isFresh({ identity, svid, signedBy }: Held, wanted: IdentityConfig): boolean {
    const now = clock.now();
    return (
      now >= svid.notBefore.getTime() &&
      now < svid.rotateAt.getTime() &&
      signedBy === authority.active.x509 &&
      (identity === wanted || sameSvidContent(identity, wanted))
    );
  }

  function isUsable({ identity, svid, signedBy }: Held, wanted: IdentityConfig): boolean {
    const now = clock.now();
    const valid = now >= svid.notBefore.getTime() && now < svid.notAfter.getTime();
    return valid && authority.vouches(signedBy.keyId) && sameSvidContent(identity, wanted);
  }

  /** Issues, records, then keeps and announces. Throws CodedError `not-ready`, with its cause. */
  function replace(identity: IdentityConfig, launchedBy: readonly string[]): X509Svid {
    const key = keyOf(identity.id, launchedBy);
    const change = held.has(key) ? "rotated" : "issued";
    const next = issue(identity, launchedBy, change);
    held.set(key, next);
    retryAt.delete(key);
    sweepSoon(next.svid.rotateAt.getTime() - clock.now());
    if (known.has(key)) listeners.get(identity.id.toString())?.notify(next.svid);
    known.add(key);
    changeListeners.notify({ change, identity, svid: next.svid });
    return next.svid;
  }

  function issue(identity: IdentityConfig, launchedBy: readonly string[], change: "issued" | "rotated"): Held {
    try {
      const now = clock.now();
      const signedBy = authority.active.x509;
      const { id, dnsNames, hint, name } = identity;
      const issued = signedBy.issue({ id, dnsNames, launchedBy, lifetimeSeconds: lifetimes().x509Seconds }, now);
      const halfLife = (issued.notAfter.getTime() - now) / 2;
      // What ends with its authority is not worth replacing before: the next one would end then too. Another authority replaces all.
      const endsWithAuthority = issued.notAfter.getTime() + 1_000 > signedBy.notAfter.getTime();
      const rotateIn = endsWithAuthority ? 2 * halfLife : halfLife * (1 + JITTER * (2 * random() - 1));
      const rotateAt = new Date(now + rotateIn);
      audit.append(change === "issued" ? "svid.issued" : "svid.rotated", {
        type: "x509",
        identity: name,
        spiffeId: id.toString(),
        ...(launchedBy.length > 0 && { launchedBy }),
        serial: issued.serial,
        notAfter: issued.notAfter.toISOString(),
        authority: signedBy.keyId,
      });
      const { serial, notAfter } = issued;
      const credential = { type: "x509", serial, audience: undefined, notAfter, authority: signedBy.keyId } as const;
      options.issued?.add(id.toString(), credential, now);
      return { identity, launchedBy, svid: { id, ...issued, rotateAt, hint }, signedBy };
    } catch (thrown) {
      throw notReady(identity, thrown);
    }
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
  function sweepNow(): void {
    retryAt.clear();
    pending = [];
    cancelSweep();
    sweepAt = Number.POSITIVE_INFINITY;
    sweepSoon(0);
  }

  function sweepSoon(delayMs: number): void {
    const at = clock.now() + delayMs;
    if (closed || at >= sweepAt) return;
    cancelSweep();
    sweepAt = at;
    cancelSweep = onceAt(clock, at, sweep);
  }

  /** Replaces what is due, those with listeners first, a few at a time; looks for more when all of them are done. */
  function sweep(): void {
    sweepAt = Number.POSITIVE_INFINITY;
    const now = clock.now();
    if (pending.length === 0) {
      pending = [...held.keys()].filter((key) => isDue(key, now));
      const isWatched = (key: string) => Number(listeners.has(held.get(key)?.identity.id.toString() ?? ""));
      pending.sort((one, other) => isWatched(other) - isWatched(one));
    }
    for (const key of pending.splice(0, REPLACEMENTS_A_TURN)) if (isDue(key, now)) replaceOrForget(key);
    if (pending.length > 0) {
      sweepSoon(0);
      return;
    }
    let next = Number.POSITIVE_INFINITY;
    for (const [key, { svid }] of held) next = Math.min(next, retryAt.get(key) ?? svid.rotateAt.getTime());
    if (held.size > 0) sweepSoon(Math.max(next - now, SHORTEST_SWEEP_MS));
  }

  function isDue(key: string, now: number): boolean {
    const one = held.get(key);
    const wanted = one && registry.find(one.identity.id.toString());
    if (one === undefined || wanted === undefined || now < (retryAt.get(key) ?? 0)) return false;
    try {
      return !isFresh(one, wanted);
    } catch {
      // The authority cannot sign: due, so that the attempt reports why.
      return true;
    }
  }

  /** What one launch had is gone with it: it is made again only if somebody still waits for it. */
  function replaceOrForget(key: string): void {
    const one = held.get(key);
    if (one !== undefined && one.launchedBy.length > 0 && !listeners.has(one.identity.id.toString())) held.delete(key);
    else tryReplace(key);
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
    x509Svid(id, launchedBy = []) {
      const identity = identityOf(id);
      const key = keyOf(id, launchedBy);
      const one = held.get(key);
      if (one === undefined) return replace(identity, launchedBy);
      if (!isUsable(one, identity)) return replace(identity, launchedBy);
      if (isDue(key, clock.now())) tryReplace(key);
      return held.get(key)?.svid ?? one.svid;
    },
    onRotation(id, listener) {
      const key = id.toString();
      const ofId = listeners.get(key) ?? createListeners<X509Svid>(options.onProblem);
      listeners.set(key, ofId);
      const unsubscribe = ofId.add(listener);
      return () => {
        unsubscribe();
        if (ofId.size === 0 && listeners.get(key) === ofId) listeners.delete(key);
      };
    },
    jwtSvid(id, audiences) {
      const identity = identityOf(id);
      try {
        const signer = authority.active.jwt;
        const request = { id, audiences, lifetimeSeconds: lifetimes().jwtSeconds, issuer: options.jwtIssuer?.() };
        const { token, expiresAt } = signer.issue(request, clock.now());
        audit.append("svid.issued", {
          type: "jwt",
          identity: identity.name,
          spiffeId: id.toString(),
          audience: audiences,
          notAfter: expiresAt.toISOString(),
          authority: signer.keyId,
        });
        const credential = { serial: undefined, audience: audiences, notAfter: expiresAt, authority: signer.keyId };
        options.issued?.add(id.toString(), { type: "jwt", ...credential }, clock.now());
        return { id, token, expiresAt, hint: identity.hint };
      } catch (thrown) {
        if (codeOf(thrown) === "audience-missing") throw thrown;
        throw notReady(identity, thrown);
      }
    },
    get held() {
      return [...held.values()].map(({ identity, svid }) => ({ identity, svid }));
    },
    rotate(id) {
      const some = [...held.values()].filter((one) => id === undefined || one.identity.id.equals(id));
      if (id !== undefined && some.length === 0) replace(identityOf(id), []);
      for (const one of some) replace(identityOf(one.identity.id), one.launchedBy);
      const names = some.map(({ identity }) => identity.name);
      return id === undefined ? [...new Set(names)] : [identityOf(id).name];
    },
    onChange: (listener) => changeListeners.add(listener),
    wake: sweepNow,
    close() {
      closed = true;
      cancelSweep();
      for (const stop of unsubscribe) stop();
    },
  };
}

/** Processes share an SVID unless other agents launched them. No SPIFFE ID holds a blank. */
function keyOf(id: SpiffeId, launchedBy: readonly string[]): string {
  return launchedBy.length === 0 ? id.toString() : [id, ...launchedBy].join(" ");
}

/** Whether both would give the same certificate and hint. */
function sameSvidContent(one: IdentityConfig, other: IdentityConfig): boolean {
  return one.id.equals(other.id) && one.hint === other.hint && isDeepStrictEqual(one.dnsNames, other.dnsNames);
}

function notReady(identity: IdentityConfig, cause: unknown): CodedError {
  return new CodedError("not-ready", `no SVID can be issued for ${identity.name}: ${messageOf(cause)}`, { cause });
}
