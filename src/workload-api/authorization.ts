import { status } from "@grpc/grpc-js";
import type { Caller } from "../attestation/caller.js";
import { launchedName } from "../attestation/launched-process.js";
import type { ProcessFacts } from "../attestation/process-facts.js";
import type { AuditFields, AuditLog } from "../audit/audit-log.js";
import { codeOf, messageOf } from "../coded-error.js";
import type { IdentityConfig } from "../config/config.js";
import type { Entitlement, IdentityRegistry } from "../identity/entitlement.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import type { Connection, Connections } from "./connections.js";
import { StatusError, statusOf } from "./grpc-status.js";
import { createSharedLooks } from "./shared-looks.js";

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
  /**
   * The same for many calls: one look at the process for all calls of its connection that have come in this turn of the event loop. It is after the last of
   * them has come, so that for each the process is what it was attested as at a moment after it had asked.
   */
  entitledInTurn(who: IdentifiedCaller, rpc: string, wanted: SpiffeId | undefined): Promise<readonly Entitlement[]>;
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

  /** The identities that follow for the process, which is still the one attested. Throws what `recheck` throws. */
  function look({ caller, connection }: IdentifiedCaller): readonly Entitlement[] {
    try {
      caller.recheck();
    } catch (thrown) {
      connection.retire();
      throw thrown;
    }
    const { granted } = registry.entitlementsOf(caller);
    const names = granted.map(({ identity }) => identity.name);
    if (names.length > 0 && connection.firstTime(`granted ${names.join(" ")}`)) observer?.attested(caller.facts, names);
    return granted;
  }

  /** At least one of those that `found` finds. */
  function someOf(who: IdentifiedCaller, rpc: string, found: () => readonly Entitlement[]): readonly Entitlement[] {
    let granted: readonly Entitlement[];
    try {
      granted = found();
    } catch (thrown) {
      return refuse(who, rpc, statusOf(thrown), codeOf(thrown));
    }
    if (granted.length > 0) return granted;
    const { pid, uid } = who.caller.facts;
    const message = `no identity follows for process ${pid} (uid ${uid}); agentid attest ${pid} shows which fact is missing`;
    const refusal = new StatusError(status.PERMISSION_DENIED, message);
    return refuse(who, rpc, refusal, "no identity follows for this process");
  }

  /** All of `granted`, or the one named `wanted`. */
  function named(
    who: IdentifiedCaller,
    rpc: string,
    wanted: SpiffeId | undefined,
    granted: readonly Entitlement[],
  ): readonly Entitlement[] {
    if (wanted === undefined) return granted;
    const found = granted.filter(({ identity }) => identity.id.equals(wanted));
    if (found.length > 0) return found;
    const { pid, uid } = who.caller.facts;
    const message = `process ${pid} (uid ${uid}) does not have the identity ${wanted}; agentid attest ${pid} shows why`;
    return refuse(who, rpc, new StatusError(status.PERMISSION_DENIED, message), `${wanted} does not follow`);
  }

  const entitled = (who: IdentifiedCaller, rpc: string) => someOf(who, rpc, () => look(who));

  /** Before the answers to one turn's calls are made … */
  const looks = createSharedLooks(setImmediate, look);
  /** … and when their entries are written. */
  const looksAgain = createSharedLooks(process.nextTick, ({ caller }) => registry.entitlementsOf(caller).granted);
  const deliveries = createDescriptions();

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

    entitledTo: (who, rpc, wanted) => named(who, rpc, wanted, entitled(who, rpc)),

    async entitledInTurn(who, rpc, wanted) {
      const found = await looks.of(who);
      return named(who, rpc, wanted, someOf(who, rpc, found));
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
      const { facts } = who.caller;
      audit.append("svid.delivered", describeDelivery(facts, launchOf(who.caller), entitlement, what));
    },

    async recordDeliveryInTurn(who, rpc, entitlement, what) {
      const { id } = entitlement.identity;
      await audit.appendInTurn("svid.delivered", deliveries.of(who, entitlement, what));
      const granted = await looksAgain.of(who);
      if (granted().some(({ identity }) => identity.id.equals(id))) return;
      const refusal = new StatusError(status.PERMISSION_DENIED, `${id} was withdrawn while this was being recorded`);
      refuse(who, rpc, refusal, `${id} no longer follows`);
    },
  };
}

/** What an entry of the record was made of. */
interface Delivery {
  readonly what: AuditFields;
  readonly entitlement: Entitlement;
  readonly facts: ProcessFacts;
  readonly launch: string | undefined;
  readonly fields: AuditFields;
}

/** The same fields for what is the same in all that they say, so that they are brought into the record's form once. */
function createDescriptions(): {
  of(who: IdentifiedCaller, entitlement: Entitlement, what: AuditFields): AuditFields;
} {
  const known = new WeakMap<Connection, WeakMap<IdentityConfig, Delivery>>();

  return {
    of({ caller, connection }, entitlement, what) {
      const { facts } = caller;
      const launch = launchOf(caller);
      const ofConnection = known.get(connection) ?? new WeakMap<IdentityConfig, Delivery>();
      known.set(connection, ofConnection);
      const before = ofConnection.get(entitlement.identity);
      const same =
        before?.what === what &&
        before.facts === facts &&
        before.launch === launch &&
        isSame(before.entitlement, entitlement);
      if (same) return before.fields;
      const fields = describeDelivery(facts, launch, entitlement, what);
      ofConnection.set(entitlement.identity, { what, entitlement, facts, launch, fields });
      return fields;
    },
  };
}

function isSame(one: Entitlement, other: Entitlement): boolean {
  return (
    one === other ||
    (one.identity === other.identity &&
      one.evidence === other.evidence &&
      one.launchedBy.length === other.launchedBy.length &&
      one.launchedBy.every((id, index) => id === other.launchedBy[index]))
  );
}

function launchOf({ launch }: Caller): string | undefined {
  return launch === undefined ? undefined : launchedName(launch);
}

function describeDelivery(
  facts: ProcessFacts,
  launch: string | undefined,
  { identity, evidence, launchedBy }: Entitlement,
  what: AuditFields,
): AuditFields {
  return {
    ...what,
    identity: identity.name,
    spiffeId: identity.id.toString(),
    evidence,
    ...(launch !== undefined && { launch }),
    ...(launchedBy.length > 0 && { launchedBy }),
    ...describeProcess(facts),
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
