import { CodedError } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import { createListeners } from "./listeners.js";
import { onceAt } from "./once-at.js";
import type { RevokedEntry } from "./revocation-list.js";
import type { RevocationStore, StoredRevocation, StoredRevokedCertificate } from "./revocation-store.js";
import { canonicalSerial, serialBytes, serialOf } from "./serial-number.js";

/** An identity that nobody gets and that nobody is believed to be. */
export interface Revocation {
  readonly id: SpiffeId;
  readonly since: Date;
  /** When it ends by itself; `restart`: with this process; undefined: only when it is undone. */
  readonly until: Date | "restart" | undefined;
}

/** A certificate that is no longer believed, also after its identity's revocation was undone: its key may be in other hands. */
export interface RevokedCertificate {
  /** Lower-case hex. */
  readonly serial: string;
  /** Generation of authorities that issued it: `X509Authority.keyId`. */
  readonly authority: string;
  readonly notAfter: Date;
}

/** What happened to the revocation of `id`. */
export interface RevocationChange {
  readonly change: "revoked" | "undone" | "expired";
  readonly id: SpiffeId;
  readonly until: Revocation["until"];
}

/** What verifiers and issuers ask before they believe or issue anything. */
export interface RevocationCheck {
  isRevoked(id: SpiffeId): boolean;
  /** Why the holder of `id` is not believed although its `chain` (DER, as presented) is good, or undefined. */
  refusalOf(id: SpiffeId, chain: readonly Buffer[]): string | undefined;
  /** Called after each change, once it is in force; the returned function unsubscribes. */
  onChange(listener: (change: RevocationChange | undefined) => void): () => void;
}

/** The revoked identities and certificates of a trust domain. */
export interface Revocations extends RevocationCheck {
  readonly list: readonly Revocation[];
  /** In force when this returns, also if it throws because the store cannot be written. A second revocation of `id` replaces the first one's end. */
  revoke(id: SpiffeId, until: Revocation["until"], certificates: readonly RevokedCertificate[]): void;
  /** Revokes certificates alone, of whomever. */
  revokeCertificates(certificates: readonly RevokedCertificate[]): void;
  /** Throws CodedError `not-revoked`. The revoked certificates stay revoked. */
  undo(id: SpiffeId): void;
  /** Unexpired revoked certificates of the generation `authority`, for its revocation list. */
  revokedBy(authority: string): readonly RevokedEntry[];
  /** Looks at the clock anew, after it has jumped. */
  wake(): void;
  /** Stops the clock's calls. Idempotent. */
  close(): void;
}

interface Held extends RevokedCertificate {
  readonly since: Date;
}

/** What `store` has kept is in force at once. Throws what the store throws: a list that cannot be read must not read as empty. */
export function createRevocations(options: {
  readonly store: RevocationStore;
  readonly clock: Clock;
  readonly onProblem?: (thrown: unknown) => void;
}): Revocations {
  const { store, clock, onProblem } = options;
  const listeners = createListeners<RevocationChange | undefined>(onProblem);
  const stored = store.load();
  const identities = new Map(stored.identities.map(restoredIdentity));
  let certificates = new Map(stored.certificates.map(restoredCertificate));
  let cancel = () => {};
  let closed = false;
  expire();

  function save(): void {
    const now = clock.now();
    certificates = new Map([...certificates].filter(([, { notAfter }]) => notAfter.getTime() > now));
    const kept = [...identities.values()].filter(({ until }) => until !== "restart");
    store.save({
      identities: kept.map(storedIdentity),
      certificates: [...certificates.values()].map(storedCertificate),
    });
  }

  /** Ends what has run out, and waits for the next end. */
  function expire(): void {
    cancel();
    if (closed) return;
    const now = clock.now();
    const over = [...identities.values()].filter(({ until }) => until instanceof Date && until.getTime() <= now);
    for (const { id } of over) identities.delete(id.toString());
    if (over.length > 0) tell(() => over.map(({ id, until }) => ({ change: "expired", id, until })));
    const ends = [...identities.values()].flatMap(({ until }) => (until instanceof Date ? [until.getTime()] : []));
    if (ends.length > 0) cancel = onceAt(clock, Math.min(...ends), expire);
  }

  /** In force first: a narrowing does not wait for the disk. */
  function tell(changes: () => readonly (RevocationChange | undefined)[]): void {
    for (const change of changes()) listeners.notify(change);
    try {
      save();
    } catch (thrown) {
      onProblem?.(thrown);
    }
  }

  function hold(more: readonly RevokedCertificate[]): void {
    const since = new Date(clock.now());
    for (const certificate of more) {
      const serial = canonicalSerial(certificate.serial);
      if (!certificates.has(serial)) certificates.set(serial, { ...certificate, serial, since });
    }
  }

  return {
    isRevoked: (id) => identities.size > 0 && identities.has(id.toString()),
    refusalOf(id, chain) {
      if (identities.size > 0 && identities.has(id.toString())) return `${id} is revoked`;
      if (certificates.size === 0) return undefined;
      const serial = chain.map(serialOf).find((one) => certificates.has(one));
      return serial === undefined ? undefined : `the certificate with the serial number ${serial} is revoked`;
    },
    onChange: (listener) => listeners.add(listener),
    get list() {
      return [...identities.values()];
    },
    revoke(id, until, revoked) {
      const since = identities.get(id.toString())?.since ?? new Date(clock.now());
      identities.set(id.toString(), { id, since, until });
      hold(revoked);
      listeners.notify({ change: "revoked", id, until });
      expire();
      save();
    },
    revokeCertificates(revoked) {
      hold(revoked);
      listeners.notify(undefined);
      save();
    },
    undo(id) {
      const revocation = identities.get(id.toString());
      if (revocation === undefined) {
        throw new CodedError("not-revoked", `${id} is not revoked`, { hint: "agentid status lists what is" });
      }
      // What widens is kept first: after a restart it must not be narrower than now, nor wider than what was recorded.
      identities.delete(id.toString());
      try {
        save();
      } catch (thrown) {
        identities.set(id.toString(), revocation);
        throw thrown;
      }
      listeners.notify({ change: "undone", id, until: revocation.until });
      expire();
    },
    revokedBy(authority) {
      const now = clock.now();
      return [...certificates.values()]
        .filter((one) => one.authority === authority && one.notAfter.getTime() > now)
        .map(({ serial, since }) => ({ serial: serialBytes(serial), since }));
    },
    wake: expire,
    close() {
      closed = true;
      cancel();
    },
  };
}

function restoredIdentity({ id, since, until }: StoredRevocation): readonly [string, Revocation] {
  return [
    id,
    { id: SpiffeId.parse(id), since: new Date(since), until: until === undefined ? undefined : new Date(until) },
  ];
}

function storedIdentity({ id, since, until }: Revocation): StoredRevocation {
  return {
    id: id.toString(),
    since: since.toISOString(),
    ...(until instanceof Date && { until: until.toISOString() }),
  };
}

function restoredCertificate(stored: StoredRevokedCertificate): readonly [string, Held] {
  const { serial, authority, notAfter, since } = stored;
  return [serial, { serial, authority, notAfter: new Date(notAfter), since: new Date(since) }];
}

function storedCertificate({ serial, authority, notAfter, since }: Held): StoredRevokedCertificate {
  return { serial, authority, notAfter: notAfter.toISOString(), since: since.toISOString() };
}
