import type { AuditLog } from "../audit/audit-log.js";
import { CodedError } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";
import type { Jwk } from "../spiffe/jwt-bundle.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import {
  type AuthorityGeneration,
  bundleOf,
  type GenerationSlots,
  isComplete,
  knownPart,
  newGeneration,
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
  /** The set of roots or keys changed. The returned function unsubscribes. */
  onBundleChange(listener: () => void): () => void;
  /** Another authority signs from now on. The returned function unsubscribes. */
  onActivation(listener: (active: AuthorityGeneration) => void): () => void;
  /** Stops the clock's calls. Idempotent. */
  close(): void;
}

export interface TrustDomainAuthorityOptions {
  readonly trustDomain: TrustDomain;
  /** Read at each creation, so that a reload counts for the next one. */
  readonly lifetimeSeconds: () => number;
  readonly keyStore: KeyStore;
  readonly clock: Clock;
  /** Every transition is recorded and synced before anyone hears of it (D20). */
  readonly audit: AuditLog;
  /** Told when a transition could not be made (the store or the record cannot be written; it is tried again) and when a listener throws. */
  readonly onProblem?: (thrown: unknown) => void;
}

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
  const life = {
    create: () => newGeneration(trustDomain, options.lifetimeSeconds(), clock.now()),
    retire: knownPart,
  };

  let slots = openSlots();
  let bundle = bundleOf(slots);
  let cancel = () => {};
  let closed = false;
  let retryAt = Number.NEGATIVE_INFINITY;
  let transiting = false;
  catchUp();
  schedule();

  function openSlots(): GenerationSlots {
    const stored = keyStore.load();
    if (stored !== undefined) {
      const restored = restoreSlots(trustDomain, stored);
      if (!isComplete(stored)) {
        keyStore.save(storedForm(restored));
        record("complete", restored);
      }
      return restored;
    }
    const fresh = { active: life.create(), prepared: undefined, old: [] };
    keyStore.save(storedForm(fresh));
    record("create", fresh);
    return fresh;
  }

  /** Makes one transition. Saved and recorded first: if either fails, nothing has changed. Then verifiers hear of it, then signers. */
  function transit(transition: AuthorityTransition): void {
    const before = slots;
    const after = applyTransition(before, transition, clock.now(), life);
    keyStore.save(storedForm(after));
    record(transition, after);
    slots = after;
    transiting = true;
    const next = bundleOf(after);
    if (!sameMembers(bundle.x509Authorities, next.x509Authorities)) {
      bundle = next;
      bundleListeners.notify();
    }
    if (before.active !== after.active) activationListeners.notify(after.active);
    transiting = false;
  }

  function record(transition: AuthorityTransition | "create" | "complete", after: GenerationSlots): void {
    const creates = transition === "create" || transition === "complete" || transition === "prepare";
    const kind = creates ? "authority.created" : "authority.rotated";
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
    };
    audit.append(kind, fields, { sync: true });
  }

  function catchUp(): void {
    for (let due = dueTransition(slots, clock.now()); due !== undefined; due = dueTransition(slots, clock.now())) {
      transit(due);
    }
  }

  function schedule(): void {
    cancel();
    if (!closed) cancel = onceAt(clock, Math.max(nextTransitionAt(slots), retryAt), () => upToDate());
  }

  /** Timers stand still while the machine sleeps, so every reader looks at the clock. */
  function upToDate(): GenerationSlots {
    const now = clock.now();
    // A listener that reads during a transition sees that transition, not the next one inside of it.
    if (closed || transiting || dueTransition(slots, now) === undefined) return slots;
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
      schedule();
    },
    onBundleChange: (listener) => bundleListeners.add(listener),
    onActivation: (listener) => activationListeners.add(listener),
    close() {
      closed = true;
      cancel();
    },
  };
}

function sameMembers<T>(one: readonly T[], other: readonly T[]): boolean {
  return one.length === other.length && one.every((member) => other.includes(member));
}
