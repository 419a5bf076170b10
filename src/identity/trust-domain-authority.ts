import type { AuditLog } from "../audit/audit-log.js";
import { CodedError } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";
import type { Jwk } from "../spiffe/jwt-bundle.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import {
  type AuthoritySlots,
  type AuthorityTransition,
  activateAt,
  applyTransition,
  dueTransition,
  isValid,
  nextTransitionAt,
} from "./authority-schedule.js";
import { createJwtAuthority, type JwtAuthority, restoreJwtAuthority } from "./jwt-authority.js";
import type { KeyStore, StoredAuthorities, StoredGeneration } from "./key-store.js";
import { onceAt } from "./once-at.js";
import { createX509Authority, restoreX509Authority, type X509Authority } from "./x509-authority.js";

/** An X.509 and a JWT authority that live and are replaced together. */
export interface AuthorityGeneration {
  readonly x509: X509Authority;
  readonly jwt: JwtAuthority;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

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
  /** Told when a transition could not be made (the store or the record cannot be written). It is tried again. */
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
  const bundleListeners = new Set<() => void>();
  const activationListeners = new Set<(active: AuthorityGeneration) => void>();
  const createGeneration = () => newGeneration(trustDomain, options.lifetimeSeconds(), clock.now());

  let slots = openSlots();
  let bundle = bundleOf(slots);
  let cancel = () => {};
  let closed = false;
  let retryAt = Number.NEGATIVE_INFINITY;
  catchUp();
  schedule();

  function openSlots(): AuthoritySlots<AuthorityGeneration> {
    const stored = keyStore.load();
    if (stored !== undefined) return restoreSlots(trustDomain, stored);
    const fresh = { active: createGeneration(), prepared: undefined, old: [] };
    keyStore.save(storedForm(fresh));
    record("create", fresh);
    return fresh;
  }

  /** Makes one transition. Saved and recorded first: if either fails, nothing has changed. Then verifiers hear of it, then signers. */
  function transit(transition: AuthorityTransition): void {
    const before = slots;
    const after = applyTransition(before, transition, clock.now(), createGeneration);
    keyStore.save(storedForm(after));
    record(transition, after);
    slots = after;
    if (!sameMembers(generations(before), generations(after))) {
      bundle = bundleOf(after);
      for (const listener of [...bundleListeners]) listener();
    }
    if (before.active !== after.active) for (const listener of [...activationListeners]) listener(after.active);
  }

  function record(transition: AuthorityTransition | "create", after: AuthoritySlots<AuthorityGeneration>): void {
    const kind = transition === "create" || transition === "prepare" ? "authority.created" : "authority.rotated";
    const { active, prepared } = after;
    const fields = {
      trustDomain: trustDomain.name,
      transition,
      active: active.x509.keyId,
      activeJwt: active.jwt.keyId,
      notAfter: active.notAfter.toISOString(),
      prepared: prepared?.x509.keyId ?? null,
      old: after.old.map((generation) => generation.x509.keyId),
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
  function upToDate(): AuthoritySlots<AuthorityGeneration> {
    const now = clock.now();
    if (closed || dueTransition(slots, now) === undefined) return slots;
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
  function signing(): AuthoritySlots<AuthorityGeneration> {
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
    rotate() {
      if (upToDate().prepared === undefined) transit("prepare");
      transit("activate");
      schedule();
    },
    onBundleChange(listener) {
      bundleListeners.add(listener);
      return () => bundleListeners.delete(listener);
    },
    onActivation(listener) {
      activationListeners.add(listener);
      return () => activationListeners.delete(listener);
    },
    close() {
      closed = true;
      cancel();
    },
  };
}

function newGeneration(trustDomain: TrustDomain, lifetimeSeconds: number, now: number): AuthorityGeneration {
  const x509 = createX509Authority({ trustDomain, lifetimeSeconds, now });
  const jwt = createJwtAuthority({ trustDomain, lifetimeSeconds, now });
  return { x509, jwt, notBefore: x509.notBefore, notAfter: x509.notAfter };
}

function generations(slots: AuthoritySlots<AuthorityGeneration>): readonly AuthorityGeneration[] {
  return [slots.active, ...(slots.prepared === undefined ? [] : [slots.prepared]), ...slots.old];
}

function bundleOf(slots: AuthoritySlots<AuthorityGeneration>) {
  const all = generations(slots);
  return {
    x509Authorities: all.map((generation) => generation.x509.certificate),
    jwtKeys: all.map((generation) => generation.jwt.publicJwk),
  };
}

function sameMembers<T>(one: readonly T[], other: readonly T[]): boolean {
  return one.length === other.length && one.every((member) => other.includes(member));
}

function storedForm(slots: AuthoritySlots<AuthorityGeneration>): StoredAuthorities {
  return {
    active: storedGeneration(slots.active),
    prepared: slots.prepared === undefined ? undefined : storedGeneration(slots.prepared),
    old: slots.old.map(storedGeneration),
  };
}

function storedGeneration({ x509, jwt }: AuthorityGeneration): StoredGeneration {
  return {
    x509Certificate: x509.certificate.toString("base64"),
    x509PrivateKeyPkcs8: x509.privateKeyPkcs8.toString("base64"),
    jwtPrivateKeyPkcs8: jwt.privateKeyPkcs8.toString("base64"),
    jwtNotBefore: jwt.notBefore.toISOString(),
    jwtNotAfter: jwt.notAfter.toISOString(),
  };
}

function restoreSlots(trustDomain: TrustDomain, stored: StoredAuthorities): AuthoritySlots<AuthorityGeneration> {
  const restore = (generation: StoredGeneration) => restoreGeneration(trustDomain, generation);
  return {
    active: restore(stored.active),
    prepared: stored.prepared === undefined ? undefined : restore(stored.prepared),
    old: stored.old.map(restore),
  };
}

function restoreGeneration(trustDomain: TrustDomain, stored: StoredGeneration): AuthorityGeneration {
  const x509 = restoreX509Authority({
    trustDomain,
    certificate: Buffer.from(stored.x509Certificate, "base64"),
    privateKeyPkcs8: Buffer.from(stored.x509PrivateKeyPkcs8, "base64"),
  });
  const jwt = restoreJwtAuthority({
    trustDomain,
    privateKeyPkcs8: Buffer.from(stored.jwtPrivateKeyPkcs8, "base64"),
    notBefore: new Date(stored.jwtNotBefore),
    notAfter: new Date(stored.jwtNotAfter),
  });
  return { x509, jwt, notBefore: x509.notBefore, notAfter: x509.notAfter };
}
