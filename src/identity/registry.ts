import { isDeepStrictEqual } from "node:util";
import type { Caller } from "../attestation/caller.js";
import type { Evidence } from "../attestation/process-facts.js";
import type { Config, IdentityConfig, LaunchConfig, Lock } from "../config/config.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import type { Entitlement, ExaminedIdentity, IdentityRegistry, MissedIdentity } from "./entitlement.js";
import { entryOfInstance, instanceIdentity, type LiveInstances, NO_INSTANCES } from "./instances.js";
import { createListeners } from "./listeners.js";
import { indexEntries, type RegistryEntry } from "./registry-index.js";
import { asksForCgroup, asksForParent, type RequiredSelector, requiredSelectors } from "./required-selectors.js";
import type { RevocationCheck } from "./revocations.js";

const NOTHING_REVOKED: RevokedIdentities = { isRevoked: () => false, onChange: () => () => undefined };

/** A registry that follows the configuration. */
export interface UpdatableIdentityRegistry extends IdentityRegistry {
  /** Takes a new configuration and lock; listeners are called if they change what follows for anyone. */
  update(config: Pick<Config, "identities">, lock: Lock): void;
  /** Tells listeners that a launch has begun or ended whose identity others than the launched process have to do with. */
  launchesChanged(): void;
}

/** What of the revocations decides who gets which identity. */
export type RevokedIdentities = Pick<RevocationCheck, "isRevoked" | "onChange">;

/** The registry of what `agentid.yaml` and `agentid.lock` say, less what is revoked. `onProblem` is told when a listener throws. */
export function createIdentityRegistry(
  config: Pick<Config, "identities">,
  lock: Lock,
  onProblem?: (thrown: unknown) => void,
  revocations: RevokedIdentities = NOTHING_REVOKED,
  live: LiveInstances = NO_INSTANCES,
): UpdatableIdentityRegistry {
  const listeners = createListeners<void>(onProblem);
  let state = registryState(config.identities, lock);
  revocations.onChange(() => listeners.notify());

  const entryOf = (nameOrId: string) => entryOfInstance(nameOrId, state.byNameOrId);

  function find(nameOrId: string): IdentityConfig | undefined {
    const configured = state.byNameOrId.get(nameOrId);
    if (configured !== undefined) return configured;
    const named = entryOf(nameOrId);
    if (named === undefined || !live.hasInstance(named.entry.name, named.instance)) return undefined;
    return instanceIdentity(named.entry, named.instance);
  }

  function isRevoked(id: SpiffeId): boolean {
    if (revocations.isRevoked(id)) return true;
    const above = state.byNameOrId.has(id.toString()) ? undefined : entryOf(id.toString());
    return above !== undefined && revocations.isRevoked(above.entry.id);
  }

  function launchOf(id: SpiffeId): string | undefined {
    const named = state.byNameOrId.has(id.toString()) ? undefined : entryOf(id.toString());
    return named && live.launchOfInstance(named.entry.name, named.instance);
  }

  /** Every agent above must still be one that could launch. */
  function refusalOf(id: SpiffeId, launchedBy: readonly string[]): string | undefined {
    if (!state.byNameOrId.has(id.toString()) && entryOf(id.toString()) !== undefined) {
      if (find(id.toString()) === undefined) return `the instance ${id} has ended`;
      if (isRevoked(id)) return `${id} is revoked`;
    }
    for (const above of launchedBy) {
      const entry = state.byNameOrId.get(above) ?? entryOf(above)?.entry;
      if (entry === undefined) return `${above}, which launched it, is no longer configured`;
      if (isRevoked(SpiffeId.parse(above))) return `${above}, which launched it, is revoked`;
    }
    return undefined;
  }

  /** Undefined where the entry itself follows; else what follows for the caller is `entry` as its launch has it. */
  function failureOf({ identity, selectors }: RegistryEntry, caller: Attested) {
    const failure = firstFailure(identity, selectors, caller);
    if (failure !== undefined) return failure;
    const refusal = refusalOf(identity.id, caller.launch?.launchedBy ?? []);
    return refusal === undefined ? undefined : { failed: "parent", detail: refusal };
  }

  function missedBy(caller: Attested, granted: readonly Entitlement[]): readonly MissedIdentity[] {
    const has = new Set(
      granted.map(({ identity }) => state.byNameOrId.get(identity.name) ?? entryOf(identity.name)?.entry),
    );
    return state.entries
      .filter(({ identity }) => !has.has(identity))
      .map((entry) => {
        const { identity } = entry;
        const failure = failureOf(entry, caller) ?? {
          failed: "revoked",
          detail: revokedDetail(identity),
        };
        return { identity, ...failure };
      });
  }

  /** Everything that `entry` asks for, each with whether it holds. */
  function examined({ identity, selectors }: RegistryEntry, caller: Attested): ExaminedIdentity {
    const asked = selectors.map(({ selector, wanted, found, explain }) => {
      const holds = wanted !== undefined && found(caller.facts).includes(wanted);
      return { what: selector, holds, detail: holds ? "" : explain(caller.facts) };
    });
    if (identity.launch !== undefined) {
      const failure = launchFailure(identity, identity.launch, caller);
      asked.push({ what: failure?.failed ?? "launch", holds: failure === undefined, detail: failure?.detail ?? "" });
    }
    const failure =
      asked.length === 0
        ? firstFailure(identity, selectors, caller)
        : identity.launch === undefined
          ? sandboxFailure(caller)
          : undefined;
    if (failure !== undefined) asked.push({ what: failure.failed, holds: false, detail: failure.detail });
    const refusal = refusalOf(identity.id, caller.launch?.launchedBy ?? []);
    if (refusal !== undefined) asked.push({ what: "parent", holds: false, detail: refusal });
    if (isRevoked(identityFor(identity, caller).id))
      asked.push({ what: "revoked", holds: false, detail: revokedDetail(identity) });
    return { identity, asked };
  }

  return {
    entitlementsOf({ facts, launch, sandboxed = false }) {
      // Read once: the kernel is asked for a launch each time, and one answer must hold for all entries.
      const caller: Attested = { facts, launch, sandboxed };
      const granted: Entitlement[] = [];
      const launchedBy = caller.launch?.launchedBy ?? [];
      for (const entry of state.candidatesFor(caller)) {
        if (failureOf(entry, caller) !== undefined) continue;
        const identity = identityFor(entry.identity, caller);
        if (isRevoked(identity.id)) continue;
        granted.push({ identity, evidence: evidenceOf(entry.identity, caller), launchedBy });
      }
      let missed: readonly MissedIdentity[] | undefined;
      return {
        granted,
        get missed() {
          missed ??= missedBy(caller, granted);
          return missed;
        },
      };
    },
    examine({ facts, launch, sandboxed = false }) {
      const caller: Attested = { facts, launch, sandboxed };
      return state.entries.map((entry) => examined(entry, caller));
    },
    find,
    instances(entry) {
      return live.instances.flatMap(({ name, instance }) => {
        const configured = entry === undefined || entry === name ? state.byNameOrId.get(name) : undefined;
        return configured?.launch?.instances === true ? [instanceIdentity(configured, instance)] : [];
      });
    },
    get identities() {
      return state.identities;
    },
    get asksForParents() {
      return state.asksForParents;
    },
    get asksForCgroups() {
      return state.asksForCgroups;
    },
    isRevoked,
    refusalOf,
    launchOf,
    launchesChanged: () => listeners.notify(),
    onChange: (listener) => listeners.add(listener),
    update(next, nextLock) {
      const same = isDeepStrictEqual(next.identities, state.identities) && isDeepStrictEqual(nextLock, state.lock);
      if (same) return;
      state = registryState(next.identities, nextLock);
      listeners.notify();
    },
  };
}

/** What of a caller decides. */
type Attested = Pick<Caller, "facts" | "launch" | "sandboxed">;

interface RegistryState {
  readonly identities: readonly IdentityConfig[];
  readonly lock: Lock;
  readonly entries: readonly RegistryEntry[];
  readonly byNameOrId: ReadonlyMap<string, IdentityConfig>;
  readonly candidatesFor: (caller: Attested) => readonly RegistryEntry[];
  readonly asksForParents: boolean;
  readonly asksForCgroups: boolean;
}

function registryState(identities: readonly IdentityConfig[], lock: Lock): RegistryState {
  const byNameOrId = new Map<string, IdentityConfig>();
  for (const identity of identities) {
    byNameOrId.set(identity.name, identity);
    byNameOrId.set(identity.id.toString(), identity);
  }
  const entries = identities.map((identity, order) => ({
    order,
    identity,
    selectors: requiredSelectors(identity, lock),
  }));
  const asksForParents = identities.some(asksForParent);
  const asksForCgroups = identities.some(asksForCgroup);
  const candidatesFor = indexEntries(entries);
  return { identities, lock, entries, byNameOrId, candidatesFor, asksForParents, asksForCgroups };
}

/** The first thing that does not hold, or undefined if the identity follows. All that is given must hold; what asks for nothing follows for nobody. */
function firstFailure(
  identity: IdentityConfig,
  selectors: readonly RequiredSelector[],
  caller: Attested,
): { failed: string; detail: string } | undefined {
  for (const required of selectors) {
    const found = required.found(caller.facts);
    if (required.wanted !== undefined && found.includes(required.wanted)) continue;
    return { failed: required.selector, detail: required.explain(caller.facts) };
  }
  if (identity.launch !== undefined) return launchFailure(identity, identity.launch, caller);
  if (selectors.length > 0) return sandboxFailure(caller);
  return identity.service === undefined
    ? { failed: "nothing", detail: "the entry names nothing that a process could prove" }
    : { failed: "service", detail: `the relay speaks as it for the service ${identity.service}; no process gets it` };
}

function launchFailure(
  { name }: IdentityConfig,
  wanted: LaunchConfig,
  { launch }: Attested,
): { failed: string; detail: string } | undefined {
  if (launch?.name !== name) {
    const is = launch === undefined ? "was not launched by agentid" : `was launched as ${launch.name}`;
    return { failed: "launch", detail: `only \`agentid run ${name}\` gives it; this process ${is}` };
  }
  if (launch.evidence === "parent" && !wanted.children) {
    const detail = `process ${launch.pid} was launched as ${name}, this one descends from it, and the entry has no \`children\``;
    return { failed: "children", detail };
  }
  if (launch.instance !== undefined && !wanted.instances) {
    return {
      failed: "instances",
      detail: `it runs as the instance ${launch.instance}, and the entry has no instances`,
    };
  }
  return undefined;
}

/** Inside are all the system's programs: an agent could become whatever an entry describes by facts. */
function sandboxFailure({ sandboxed }: Attested): { failed: string; detail: string } | undefined {
  if (sandboxed !== true) return undefined;
  return { failed: "launch", detail: "it runs inside a sandbox, where no identity follows but by the launch itself" };
}

function revokedDetail({ name }: IdentityConfig): string {
  return `it was revoked; \`agentid revoke --undo ${name}\` gives it back`;
}

/** What follows for `caller` from the entry `identity`: an instance's own identity where it was launched as one. */
function identityFor(identity: IdentityConfig, { launch }: Attested): IdentityConfig {
  if (launch?.instance === undefined || identity.launch === undefined) return identity;
  return instanceIdentity(identity, launch.instance);
}

/** As strong as the weakest thing it rests on. */
function evidenceOf(identity: IdentityConfig, { facts, launch }: Attested): Evidence {
  const asks = Object.keys(identity.facts).length > 0;
  if (asks && facts.evidence === "weak") return "weak";
  if (asksForParent(identity)) return "parent";
  return identity.launch === undefined || launch === undefined ? facts.evidence : launch.evidence;
}
