import { status } from "@grpc/grpc-js";
import type { Caller } from "../attestation/caller.js";
import { launchedName } from "../attestation/launched-process.js";
import type { ProcessFacts } from "../attestation/process-facts.js";
import type { AuditFields, AuditLog } from "../audit/audit-log.js";
import { codeOf, messageOf } from "../coded-error.js";
import type { Entitlement, IdentityRegistry } from "../identity/entitlement.js";
import { federatesWith } from "../identity/federates-with.js";
import { SpiffeId, type TrustDomain } from "../spiffe/spiffe-id.js";
import type { Connection, Connections } from "./connections.js";
import { StatusError, statusOf } from "./grpc-status.js";

const MOST_QUOTED = 8;
const LONGEST_QUOTED = 200;

/** What the Workload API tells whoever shows it to people. Called once for each connection and outcome, not once a retry. */
export interface WorkloadApiObserver {
  /** A process connected and these identities (names, default first) follow for it. */
  attested(facts: ProcessFacts, identities: readonly string[]): void;
  /** A process asked for an identity and got none. */
  refused(who: { readonly pid: number; readonly uid: number }, reason: string): void;
  /** A process could not use what it was sent (an Envoy's NACK), in its own words. */
  rejected(who: { readonly pid: number; readonly uid: number }, reason: string): void;
}

/** A caller with the connection it came by. */
export interface IdentifiedCaller {
  readonly caller: Caller;
  readonly connection: Connection;
}

/** The steps that every RPC about identities takes before it answers. Each throws StatusError. */
export interface Authorization {
  /** The process at the other end of the call, once attested. */
  identifyCaller(call: { getPeer(): string }): Promise<IdentifiedCaller>;
  /** That process is still the one attested; then the identities that follow for it, at least one, the default first (EP-10, XR-12). */
  entitled(who: IdentifiedCaller, rpc: string): readonly Entitlement[];
  /** Of those, all, or the one named `wanted` (JR-4). */
  entitledTo(who: IdentifiedCaller, rpc: string, wanted: SpiffeId | undefined): readonly Entitlement[];
  /** Whether one of the caller's identities federates with `trustDomain`; who has none is kept from none. */
  dealsWith(who: IdentifiedCaller, trustDomain: TrustDomain): boolean;
  /** Ends an RPC that asks for resources which the caller may not have, in SPIRE's words: InvalidArgument. */
  refuseResources(who: IdentifiedCaller, rpc: string, names: readonly string[]): never;
  /** Tells people that the caller could not use what it was sent. */
  reportRejection(who: IdentifiedCaller, reason: string): void;
  /** Writes to the record that `entitlement` was handed to the caller. Called before the answer leaves (D20). */
  recordDelivery(who: IdentifiedCaller, entitlement: Entitlement, what: AuditFields): void;
  /** The same for answers that wait for it: one write for all of a turn of the event loop. Rejects also if the identity does not follow any more when that is done. */
  recordDeliveryInTurn(who: IdentifiedCaller, rpc: string, entitlement: Entitlement, what: AuditFields): Promise<void>;
}

export function createAuthorization(dependencies: {
  readonly connections: Connections;
  readonly registry: Pick<IdentityRegistry, "entitlementsOf">;
  readonly audit: Pick<AuditLog, "append" | "appendInTurn">;
  readonly observer: WorkloadApiObserver | undefined;
}): Authorization {
  const { connections, registry, audit, observer } = dependencies;

  /** A refusal is recorded before it is answered; the caller gets nothing either way if the record cannot be written. */
  function refuse({ caller, connection }: IdentifiedCaller, rpc: string, refusal: StatusError, detail: string): never {
    const { pid, uid } = caller.facts;
    audit.append("svid.refused", { rpc, reason: detail, ...describeProcess(caller.facts) });
    if (connection.firstTime(`refused ${detail}`)) observer?.refused({ pid, uid }, detail);
    throw refusal;
  }

  function recheck(who: IdentifiedCaller, rpc: string): void {
    try {
      who.caller.recheck();
    } catch (thrown) {
      who.connection.retire();
      refuse(who, rpc, statusOf(thrown), codeOf(thrown));
    }
  }

  function entitled(who: IdentifiedCaller, rpc: string): readonly Entitlement[] {
    recheck(who, rpc);
    const { granted } = registry.entitlementsOf(who.caller);
    const { pid, uid } = who.caller.facts;
    if (granted.length === 0) {
      const message = `no identity follows for process ${pid} (uid ${uid}); agentid attest ${pid} shows which fact is missing`;
      refuse(who, rpc, new StatusError(status.PERMISSION_DENIED, message), "no identity follows for this process");
    }
    const names = granted.map(({ identity }) => identity.name);
    if (who.connection.firstTime(`granted ${names.join(" ")}`)) observer?.attested(who.caller.facts, names);
    return granted;
  }

  return {
    async identifyCaller(call) {
      const connection = connections.find(call.getPeer());
      if (connection === undefined)
        throw new StatusError(status.UNAUTHENTICATED, "the connection was closed before its process could be named");
      connection.spoke();
      try {
        return { caller: connection.attested ?? (await connection.caller), connection };
      } catch (thrown) {
        connection.retire();
        audit.append("svid.refused", { reason: codeOf(thrown), detail: messageOf(thrown) });
        throw statusOf(thrown);
      }
    },

    entitled,

    entitledTo(who, rpc, wanted) {
      const granted = entitled(who, rpc);
      if (wanted === undefined) return granted;
      const named = granted.filter(({ identity }) => identity.id.equals(wanted));
      if (named.length > 0) return named;
      const { pid, uid } = who.caller.facts;
      const message = `process ${pid} (uid ${uid}) does not have the identity ${wanted}; agentid attest ${pid} shows why`;
      return refuse(who, rpc, new StatusError(status.PERMISSION_DENIED, message), `${wanted} does not follow`);
    },

    dealsWith({ caller }, trustDomain) {
      const { granted } = registry.entitlementsOf(caller);
      return granted.length === 0 || granted.some(({ identity }) => federatesWith(identity, trustDomain));
    },

    refuseResources(who, rpc, names) {
      const quoted = quoteSome(names);
      const message = `workload is not authorized for the requested identities [${quoted}]`;
      return refuse(who, rpc, new StatusError(status.INVALID_ARGUMENT, message), `${quoted} does not follow`);
    },

    reportRejection({ caller, connection }, reason) {
      const { pid, uid } = caller.facts;
      if (connection.firstTime(`rejected ${reason}`)) observer?.rejected({ pid, uid }, reason);
    },

    recordDelivery(who, entitlement, what) {
      audit.append("svid.delivered", describeDelivery(who, entitlement, what));
    },

    async recordDeliveryInTurn(who, rpc, entitlement, what) {
      const { id } = entitlement.identity;
      await audit.appendInTurn("svid.delivered", describeDelivery(who, entitlement, what));
      const { granted } = registry.entitlementsOf(who.caller);
      if (granted.some(({ identity }) => identity.id.equals(id))) return;
      const refusal = new StatusError(status.PERMISSION_DENIED, `${id} was withdrawn while this was being recorded`);
      refuse(who, rpc, refusal, `${id} no longer follows`);
    },
  };
}

export function identitiesOf(granted: readonly Entitlement[]): readonly Entitlement["identity"][] {
  return granted.map(({ identity }) => identity);
}

function describeDelivery(
  { caller }: IdentifiedCaller,
  { identity, evidence, launchedBy }: Entitlement,
  what: AuditFields,
): AuditFields {
  return {
    ...what,
    identity: identity.name,
    spiffeId: identity.id.toString(),
    evidence,
    ...(caller.launch === undefined ? {} : { launch: launchedName(caller.launch) }),
    ...(launchedBy.length > 0 && { launchedBy }),
    ...describeProcess(caller.facts),
  };
}

/** The first of `names`, sorted, each cut to a length: a status travels in an HTTP/2 header, and what does not fit there is lost. */
function quoteSome(names: readonly string[]): string {
  const sorted = [...names].sort();
  const quoted = sorted.slice(0, MOST_QUOTED).map((name) => JSON.stringify(name.slice(0, LONGEST_QUOTED)));
  if (sorted.length > MOST_QUOTED) quoted.push(`and ${sorted.length - MOST_QUOTED} more`);
  return quoted.join(" ");
}

/** The process, for the record: kernel's words only, nothing it can choose itself. */
function describeProcess(facts: ProcessFacts): AuditFields {
  return {
    pid: facts.pid,
    uid: facts.uid,
    gid: facts.gid,
    exe: facts.exePath ?? null,
    exeSha256: facts.exeSha256 ?? null,
    factsEvidence: facts.evidence,
  };
}

/** The SPIFFE ID asked for, undefined if none; InvalidArgument if it is not one (JR-4). */
export function parseWantedId(text: string): SpiffeId | undefined {
  if (text === "") return undefined;
  try {
    return SpiffeId.parse(text);
  } catch (thrown) {
    throw new StatusError(status.INVALID_ARGUMENT, `spiffe_id: ${messageOf(thrown)}`, { cause: thrown });
  }
}
