import type { PreparedFields } from "./prepared-fields.js";

/**
 * The record. An entry is written to the log file before the answer it is about goes out (D20), so it survives `kill -9` of the daemon;
 * the file is synced in groups at least every 50 ms, and at once for `sync: true`.
 */
export interface AuditLog {
  /** Appends and returns the entry's place. Throws CodedError `audit-unwritable`; callers then deny. */
  append(kind: AuditKind, fields: AuditFields | PreparedFields, options?: { sync?: boolean }): AuditReceipt;
  /**
   * Appends in one write with what else is appended so in this turn of the event loop, after the first: a file system takes as long for one entry as for many.
   * Resolves when the entry is in the file; rejects with CodedError `audit-unwritable`, callers then deny. Entries are in the order of the calls,
   * those of `append` among them. `fields` must not change afterwards: the same object is brought into its canonical form once.
   */
  appendInTurn(kind: AuditKind, fields: AuditFields | PreparedFields): Promise<AuditReceipt>;
  /** Entries from `sequence` (0-based) on, oldest first, in the form they were written. */
  read(fromSequence: number, limit: number): Promise<readonly AuditEntry[]>;
  readonly size: number;
  close(): Promise<void>;
}

export type AuditKind =
  | "daemon.start"
  | "daemon.stop"
  | "authority.created"
  | "authority.rotated"
  | "authority.tainted"
  | "authority.revoked"
  | "identity.revoked"
  /** A revocation was undone or has run out. */
  | "identity.restored"
  | "svid.issued"
  /** An issued SVID was handed to a process: which one, by the kernel's word. */
  | "svid.delivered"
  | "svid.refused"
  | "svid.rotated"
  | "launch.granted"
  | "launch.refused"
  | "launch.started"
  | "launch.ended"
  | "call"
  | "decision"
  /** Another enforcement point asked who or what is permitted; `fields` say how many were found. */
  | "search"
  | "reload"
  | "reload.waiting"
  | "reload.accepted"
  | "reload.refused"
  | "control.refused"
  /** Refusals of strangers, alike, that were counted and not recorded one by one: `count`, `since`, `until`. */
  | "refusals.counted"
  | "pin"
  | "secret.set"
  | "secret.removed"
  /** The bundle of another trust domain, by command or from its endpoint: what was trusted from here on. */
  | "bundle.set"
  | "bundle.refused"
  | "bundle.deleted"
  /** A line that a power cut left half written was cut off; `fields` say how long it was. */
  | "record.torn"
  /** Opens a new segment after one that is not what was written to it; `fields` say where and pin its digest. */
  | "record.broken";

export type AuditValue =
  | string
  | number
  | boolean
  | null
  | readonly AuditValue[]
  | { readonly [key: string]: AuditValue };
export type AuditFields = { readonly [key: string]: AuditValue };

export interface AuditReceipt {
  readonly sequence: number;
  /** Hex; of the entry as written, chained to all before it. */
  readonly hash: string;
}

export interface AuditEntry {
  readonly sequence: number;
  /** RFC 3339 with milliseconds, UTC. */
  readonly time: string;
  readonly kind: AuditKind;
  readonly fields: AuditFields;
  readonly hash: string;
}
