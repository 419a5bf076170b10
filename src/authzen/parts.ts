import type { Administration } from "../attestation/administrator.js";
import type { CallerAttestor } from "../attestation/caller.js";
import type { AuditLog } from "../audit/audit-log.js";
import type { StrangerRefusals } from "../audit/stranger-refusals.js";
import type { NewEvent } from "../control-api/events.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import type { X509BundleSource, X509SvidSource } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import type { DecisionPoint } from "../policy/access-request.js";
import type { DecidedCall } from "../policy/decided-call.js";
import type { Entities } from "../policy/entities.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";

/** What the AuthZEN server is made of; the daemon gives it. */
export interface AuthzenParts {
  readonly trustDomain: TrustDomain;
  readonly attestor: CallerAttestor;
  readonly registry: IdentityRegistry;
  readonly svids: X509SvidSource;
  readonly bundles: X509BundleSource;
  /** The decision point of the policy set in force now. */
  readonly decisionPoint: () => DecisionPoint;
  readonly audit: AuditLog;
  readonly clock: Clock;
  readonly emit: (event: NewEvent) => void;
  /** Called after each decision is on record: what `agentid explain` explains later. */
  readonly onDecision?: (decided: DecidedCall) => void;
  /** Keeps who may not ask from filling the record; without it each refusal is recorded by itself. */
  readonly strangers?: Pick<StrangerRefusals, "isRecorded">;
  /** Names of the identities that may ask. */
  readonly clients: () => readonly string[];
  /** Whether the process at the other end of a Unix socket is shown to be the owner's own (D25). */
  readonly owner: (fd: number) => Administration;
  /** Of each running launch of an identity the SPIFFE IDs of the agents above it. */
  readonly launchedBy: (name: string) => readonly (readonly string[])[];
  readonly services: () => readonly KnownService[];
  /** Users, records and groups; in force together with the decision point. */
  readonly entities: () => Entities;
  /** Actions that the policies name for resources of `type`, beside those of HTTP and MCP. */
  readonly actionsOn: (type: string) => readonly string[];
  /** Names of the tools of a service, as far as they are pinned. */
  readonly toolsOf: (service: string) => readonly string[];
  /** Types of obligations that the policies may ask for. */
  readonly obligations: () => readonly string[];
}

export interface KnownService {
  /** `payments`. */
  readonly name: string;
  /** SPIFFE ID. */
  readonly id: string;
  readonly protocol: "http" | "mcp" | "tcp";
}

/** Who asks: an enforcement point that may. */
export interface EnforcementPoint {
  /** `agents/gateway`, or `owner` for the owner's own process. */
  readonly name: string;
  /** SPIFFE ID; undefined for the owner. */
  readonly id: string | undefined;
  /** In kernel words; empty where it came by certificate. */
  readonly detail: string;
}
