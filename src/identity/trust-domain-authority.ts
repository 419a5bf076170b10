import type { AuditFields, AuditKind, AuditLog } from "../audit/audit-log.js";
import { CodedError } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";
import type { Jwk } from "../spiffe/jwt-bundle.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import {
  type AuthorityReport,
  authorityReports,
  generationNamed,
  requireActivatable,
  withoutRevoked,
  withTainted,
} from "./authority-commands.js";
import {
  type AuthorityGeneration,
  bundleOf,
  type GenerationSlots,
  isBelow,
  isComplete,
  type KnownAuthority,
  newGeneration,
  oldPart,
  restoreSlots,
  storedForm,
} from "./authority-generation.js";
import {
  type AuthorityTransition,
  activateAt,
  applyTransition,
  dueTransition,
  isValid,
  nextTransitionAt,
} from "./authority-schedule.js";
import type { KeyStore } from "./key-store.js";
import { createListeners } from "./listeners.js";
import { onceAt } from "./once-at.js";
import type { Revocations } from "./revocations.js";
import type { UpstreamAuthority } from "./upstream-authority.js";

/** The trust domain's own authority: what is signed with now, and everything that verifiers must know. */
export interface TrustDomainAuthority {
  readonly trustDomain: TrustDomain;
  /** Who signs now. Never one that has expired, whatever the clock did: reading this catches up with it. Throws CodedError `authority-expired` if that fails. */
  readonly active: AuthorityGeneration;
  readonly prepared: AuthorityGeneration | undefined;
  /** When `active` will be replaced. */
  readonly rotateAt: Date;
  /** DER of every valid root. The same array until the bundle changes. */
  readonly x509Authorities: readonly Buffer[];
  /** Public key of every valid JWT authority. The same array until the bundle changes. */
  readonly jwtKeys: readonly Jwk[];
  /** Public key of every valid WIT authority. The same array until the bundle changes. */
  readonly witKeys: readonly Jwk[];
  /**
   * Prepares an authority (unless one is) and activates it now: listeners hear of the bundle first, then of the new signer.
   * The old one stays in the bundle until it expires. Throws what saving and recording throw; then nothing has changed.
   */
  rotate(): void;
  /** Every generation in the bundle, the one that signs first. */
  readonly generations: readonly AuthorityReport[];
  /** Puts the next authority into the bundle; one that is prepared already stays. Throws what saving and recording throw. */
  prepare(): AuthorityReport;
  /** Lets the prepared one sign. Throws CodedError `authority-state`, and `authority-too-fresh` within 5 s of preparing unless `hurried`. */
  activate(options?: { readonly hurried?: boolean }): AuthorityReport;
  /** Distrusts an old one (named by the beginning of a key id): what it signed is replaced at once. Throws CodedError `authority-unknown`, `authority-state`. */
  taint(keyId: string): AuthorityReport;
  /** Takes an old one out of the bundle. Throws CodedError `authority-unknown`, `authority-state`. */
  revoke(keyId: string): KnownAuthority;
  /** True if what the X.509 or WIT authority `keyId` has signed may still be handed out: it is active, or old and not tainted. */
  vouches(keyId: string): boolean;
  /** DER revocation lists: of the active authority, and of old ones; of those whose keys a former process had, the last that it signed. */
  revocationLists(): readonly Buffer[];
  /** Looks at the clock anew, after it has jumped. */
  wake(): void;
  /** The set of roots or keys changed. The returned function unsubscribes. */
  onBundleChange(listener: () => void): () => void;
  /** Another authority signs from now on. The returned function unsubscribes. */
  onActivation(listener: (active: AuthorityGeneration) => void): () => void;
  /** A generation no longer vouches for what it has signed. The returned function unsubscribes. */
  onDistrust(listener: () => void): () => void;
  /** Stops the clock's calls. Idempotent. */
  close(): void;
}

export interface TrustDomainAuthorityOptions {
  readonly trustDomain: TrustDomain;
  /** Read at each creation, so that a reload counts for the next one. */
  readonly lifetimeSeconds: () => number;
  /** The authority above ours, read at each look at the clock: when it changes, a successor is prepared and activated. */
  readonly upstream?: () => UpstreamAuthority | undefined;
  readonly keyStore: KeyStore;
  /** What revocation lists say. */
  readonly revocations?: Pick<Revocations, "revokedBy" | "onChange">;
  readonly clock: Clock;
  /** Every transition is recorded and synced before anyone hears of it (D20). */
  readonly audit: AuditLog;
  /** Told when a transition could not be made (the store or the record cannot be written; it is tried again) and when a listener throws. */
  readonly onProblem?: (thrown: unknown) => void;
}

/** What brings the slots from one state to the next: time, a person, or a start. */
type RecordedTransition = AuthorityTransition | "create" | "complete" | "taint" | "revoke";

const KINDS = {
  create: "authority.created",
  complete: "authority.created",
  prepare: "authority.created",
  activate: "authority.rotated",
  retire: "authority.rotated",
  replace: "authority.rotated",
  taint: "authority.tainted",
  revoke: "authority.revoked",
} as const satisfies Record<RecordedTransition, AuditKind>;

/** How long to wait before trying again what failed. */
const RETRY_MS = 5_000;

/**
 * The authority kept in `keyStore`, or a new one if there is none. An expired one is replaced.
 * Throws what `KeyStore` and `AuditLog.append` throw, and CodedError `authority-key-mismatch`.
 */
export function createTrustDomainAuthority(options: TrustDomainAuthorityOptions): TrustDomainAuthority {
  const { trustDomain, keyStore, clock, audit } = options;
  const bundleListeners = createListeners<void>(options.onProblem);
  const activationListeners = createListeners<AuthorityGeneration>(options.onProblem);
  const distrustListeners = createListeners<void>(options.onProblem);
  const upstream = () => options.upstream?.();
  const life = {
    create: () => newGeneration(trustDomain, options.lifetimeSeconds(), clock.now(), upstream()),
    retire: oldPart,
  };
  const demands = {
    isWanted: (authority: KnownAuthority) => isBelow(authority, upstream()),
    get latestEnd() {
      return upstream()?.notAfter.getTime() ?? Number.POSITIVE_INFINITY;
    },
  };
  const due = () => dueTransition(slots, clock.now(), demands);
  const listed = (keyId: string) => ({ revoked: options.revocations?.revokedBy(keyId) ?? [], now: clock.now() });
  const save = (kept: GenerationSlots): void => keyStore.save(storedForm(kept, listed));

  let slots = openSlots();
  let bundle = bundleOf(slots);
  let cancel = () => {};
  let closed = false;
  let retryAt = Number.NEGATIVE_INFINITY;
  let transiting = false;
  catchUp();
  schedule();
  const forgetRevocations = options.revocations?.onChange(keepLists);

  /** The lists of authorities that sign nothing else any more, for whoever runs when their keys are gone. */
  function keepLists(): void {
    if (!slots.old.some(({ signsRevocations }) => signsRevocations)) return;
    try {
      save(slots);
    } catch (thrown) {
      options.onProblem?.(thrown);
    }
  }

  function openSlots(): GenerationSlots {
    const stored = keyStore.load();
    if (stored !== undefined) {
      const restored = restoreSlots(trustDomain, stored);
      if (!isComplete(stored)) {
        save(restored);
        record("complete", restored);
      }
      return restored;
    }
    const fresh = { active: life.create(), prepared: undefined, old: [] };
    save(fresh);
    record("create", fresh);
    return fresh;
  }

  function transit(transition: AuthorityTransition): void {
    change(transition, applyTransition(slots, transition, clock.now(), life));
  }

  /** Saved and recorded first: if either fails, nothing has changed. Then verifiers hear of it, then signers. */
  function change(transition: RecordedTransition, after: GenerationSlots): void {
    const before = slots;
    save(after);
    record(transition, after);
    slots = after;
    transiting = true;
    const next = bundleOf(after);
    const sameRoots = sameMembers(bundle.x509Authorities, next.x509Authorities);
    if (!sameRoots || !sameMembers(bundle.jwtKeys, next.jwtKeys)) {
      // The same array as long as it has the same members.
      bundle = sameRoots ? { ...next, x509Authorities: bundle.x509Authorities } : next;
      bundleListeners.notify();
    }
    if (before.active !== after.active) activationListeners.notify(after.active);
    if (transition === "taint" || transition === "revoke") distrustListeners.notify();
    transiting = false;
    schedule();
  }

  function record(transition: RecordedTransition, after: GenerationSlots): void {
    const kind = KINDS[transition];
    const { active, prepared } = after;
    const fields = {
      trustDomain: trustDomain.name,
      transition,
      active: active.x509.keyId,
      activeJwt: active.jwt.keyId,
      activeWit: active.wit.keyId,
      notAfter: active.notAfter.toISOString(),
      prepared: prepared?.x509.keyId ?? null,
      old: after.old.map(({ jwtPublicKey }) => jwtPublicKey.kid ?? ""),
      ...(upstream() === undefined ? {} : { upstream: active.upstreamChain.length > 0 }),
      ...tainted(after),
    };
    audit.append(kind, fields, { sync: true });
  }

  function catchUp(): void {
    for (let next = due(); next !== undefined; next = due()) transit(next);
  }

  function schedule(): void {
    cancel();
    if (closed) return;
    cancel = onceAt(clock, Math.max(nextTransitionAt(slots, demands), retryAt), () => {
      upToDate();
      schedule();
    });
  }

  /** Timers stand still while the machine sleeps, so every reader looks at the clock. */
  function upToDate(): GenerationSlots {
    const now = clock.now();
    // A listener that reads during a transition sees that transition, not the next one inside of it.
    if (closed || transiting || due() === undefined) return slots;
    if (isValid(slots.active, now) && now < retryAt) return slots;
    try {
      catchUp();
    } catch (thrown) {
      retryAt = now + RETRY_MS;
      options.onProblem?.(thrown);
    }
    schedule();
    return slots;
  }

  /** The slots, with an active authority that is valid now. */
  function signing(): GenerationSlots {
    const latest = upToDate();
    if (isValid(latest.active, clock.now())) return latest;
    throw new CodedError("authority-expired", `the authority of ${trustDomain} has expired and cannot be replaced now`);
  }

  function reportIn(state: AuthorityReport["state"]): AuthorityReport {
    const found = authorityReports(slots).find((one) => one.state === state);
    if (found === undefined) throw new Error(`no authority is ${state} after it was made so`);
    return found;
  }

  return {
    trustDomain,
    get active() {
      return signing().active;
    },
    get prepared() {
      return upToDate().prepared;
    },
    get rotateAt() {
      return new Date(activateAt(upToDate().active));
    },
    get x509Authorities() {
      upToDate();
      return bundle.x509Authorities;
    },
    get jwtKeys() {
      upToDate();
      return bundle.jwtKeys;
    },
    get witKeys() {
      upToDate();
      return bundle.witKeys;
    },
    rotate() {
      if (upToDate().prepared === undefined) transit("prepare");
      transit("activate");
    },
    get generations() {
      return authorityReports(upToDate());
    },
    prepare() {
      if (upToDate().prepared === undefined) transit("prepare");
      return reportIn("prepared");
    },
    activate({ hurried = false } = {}) {
      requireActivatable(upToDate(), clock.now(), hurried);
      transit("activate");
      return reportIn("active");
    },
    taint(keyId) {
      const found = generationNamed(upToDate(), keyId);
      change("taint", withTainted(slots, found.keyId));
      return { ...found, state: "tainted" };
    },
    revoke(keyId) {
      const found = generationNamed(upToDate(), keyId);
      const authority = slots.old.find((one) => one.keyId === found.keyId) ?? slots.active;
      change("revoke", withoutRevoked(slots, found.keyId));
      return authority;
    },
    vouches(keyId) {
      const { active, old } = upToDate();
      const has = (one: KnownAuthority) => one.keyId === keyId || one.witPublicKey?.kid === keyId;
      return has(active) || old.some((one) => has(one) && !one.tainted);
    },
    revocationLists() {
      const { active, old } = upToDate();
      return [
        active.x509.revocationList(listed(active.keyId)),
        ...old.flatMap((one) => one.revocationList?.(listed(one.keyId)) ?? []),
      ];
    },
    wake() {
      // What failed under the old time is tried again under the new one.
      retryAt = Number.NEGATIVE_INFINITY;
      upToDate();
      schedule();
    },
    onBundleChange: (listener) => bundleListeners.add(listener),
    onActivation: (listener) => activationListeners.add(listener),
    onDistrust: (listener) => distrustListeners.add(listener),
    close() {
      closed = true;
      cancel();
      forgetRevocations?.();
    },
  };
}

function sameMembers<T>(one: readonly T[], other: readonly T[]): boolean {
  return one.length === other.length && one.every((member) => other.includes(member));
}

function tainted({ old }: GenerationSlots): AuditFields {
  const keyIds = old.filter((one) => one.tainted).map(({ keyId }) => keyId);
  return keyIds.length === 0 ? {} : { tainted: keyIds };
}
