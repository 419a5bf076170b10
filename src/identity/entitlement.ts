import type { Caller } from "../attestation/caller.js";
import type { Evidence } from "../attestation/process-facts.js";
import type { IdentityConfig } from "../config/config.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";

/** An identity that follows from what is known of a process, and how strong that is. */
export interface Entitlement {
  readonly identity: IdentityConfig;
  readonly evidence: Evidence;
  /** SPIFFE IDs of the agents that launched the process, nearest first: it is permitted only what each of them is permitted too. */
  readonly launchedBy: readonly string[];
}

/** An identity that does not follow, and the one thing that failed. */
export interface MissedIdentity {
  readonly identity: IdentityConfig;
  /** The selector asked for (`unix:sha256:…`), `launch`, or `revoked`. */
  readonly failed: string;
  /** In words: wanted and found. */
  readonly detail: string;
}

/** An identity with everything that it asks of a process; it follows if all of it holds. */
export interface ExaminedIdentity {
  readonly identity: IdentityConfig;
  readonly asked: readonly {
    /** The selector (`unix:uid:1000`), `launch`, `service`, `nothing`, or `revoked`. */
    readonly what: string;
    readonly holds: boolean;
    /** In words: wanted and found; empty where it holds. */
    readonly detail: string;
  }[];
}

/** The registry: which identities follow for a caller, in the order of the configuration (D9). */
export interface IdentityRegistry {
  entitlementsOf(caller: Caller): {
    readonly granted: readonly Entitlement[];
    /** Worked out when it is read: it names every other identity. */
    readonly missed: readonly MissedIdentity[];
  };
  /** Every identity with all that it asks of the caller, for people. */
  examine(caller: Caller): readonly ExaminedIdentity[];
  /** The configured identity with this name or SPIFFE ID, or the one of a living instance, or undefined. */
  find(nameOrId: string): IdentityConfig | undefined;
  readonly identities: readonly IdentityConfig[];
  /** Those of the living instances, `agents/billing/INSTANCE` each, of all entries or of the one named. */
  instances(entry?: string): readonly IdentityConfig[];
  /** Whether any identity rests on what a process's parent runs. */
  readonly asksForParents: boolean;
  /** Whether any identity rests on a process's control group, or on what that names. */
  readonly asksForCgroups: boolean;
  /** True if nobody gets `id` now, although it may be configured. An instance is revoked with its entry. */
  isRevoked(id: SpiffeId): boolean;
  /** Why a holder of `id` that `launchedBy` launched is not believed in this trust domain, or undefined: an agent above it is revoked, or the instance has ended. */
  refusalOf(id: SpiffeId, launchedBy: readonly string[]): string | undefined;
  /** Which launch the living instance `id` is; undefined for what is no instance, or has ended. */
  launchOf(id: SpiffeId): string | undefined;
  /** Called after each change of what is configured, revoked or launched; the returned function unsubscribes. */
  onChange(listener: () => void): () => void;
}
