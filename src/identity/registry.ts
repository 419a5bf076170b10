import { isDeepStrictEqual } from "node:util";
import type { Caller } from "../attestation/caller.js";
import type { Evidence, ProcessFacts } from "../attestation/process-facts.js";
import type { Config, IdentityConfig, Lock } from "../config/config.js";
import type { Entitlement, ExaminedIdentity, IdentityRegistry, MissedIdentity } from "./entitlement.js";
import { createListeners } from "./listeners.js";
import { indexEntries, type RegistryEntry } from "./registry-index.js";
import { asksForParent, type RequiredSelector, requiredSelectors } from "./required-selectors.js";
import type { RevocationCheck } from "./revocations.js";

const NOTHING_REVOKED: RevokedIdentities = { isRevoked: () => false, onChange: () => () => undefined };

/** A registry that follows the configuration. */
export interface UpdatableIdentityRegistry extends IdentityRegistry {
  /** Takes a new configuration and lock; listeners are called if they change what follows for anyone. */
  update(config: Pick<Config, "identities">, lock: Lock): void;
}

/** What of the revocations decides who gets which identity. */
export type RevokedIdentities = Pick<RevocationCheck, "isRevoked" | "onChange">;

/** The registry of what `agentid.yaml` and `agentid.lock` say, less what is revoked. `onProblem` is told when a listener throws. */
export function createIdentityRegistry(
  config: Pick<Config, "identities">,
  lock: Lock,
  onProblem?: (thrown: unknown) => void,
  revocations: RevokedIdentities = NOTHING_REVOKED,
): UpdatableIdentityRegistry {
  const listeners = createListeners<void>(onProblem);
  let state = registryState(config.identities, lock);
  revocations.onChange(() => listeners.notify());

  function missedBy(caller: Caller, granted: readonly Entitlement[]): readonly MissedIdentity[] {
    const has = new Set(granted.map(({ identity }) => identity));
    return state.entries
      .filter(({ identity }) => !has.has(identity))
      .map(({ identity, selectors }) => {
        const failure = firstFailure(identity, selectors, caller) ?? {
          failed: "revoked",
          detail: revokedDetail(identity),
        };
        return { identity, ...failure };
      });
  }

  return {
    entitlementsOf(caller) {
      const granted: Entitlement[] = [];
      for (const { identity, selectors } of state.candidatesFor(caller)) {
        if (revocations.isRevoked(identity.id) || firstFailure(identity, selectors, caller) !== undefined) continue;
        granted.push({ identity, evidence: evidenceOf(identity, caller.facts) });
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
    examine: (caller) =>
      state.entries.map((entry) => examined(entry, caller, revocations.isRevoked(entry.identity.id))),
    find: (nameOrId) => state.byNameOrId.get(nameOrId),
    get identities() {
      return state.identities;
    },
    get asksForParents() {
      return state.asksForParents;
    },
    isRevoked: (id) => revocations.isRevoked(id),
    onChange: (listener) => listeners.add(listener),
    update(next, nextLock) {
      const same = isDeepStrictEqual(next.identities, state.identities) && isDeepStrictEqual(nextLock, state.lock);
      if (same) return;
      state = registryState(next.identities, nextLock);
      listeners.notify();
    },
  };
}

interface RegistryState {
  readonly identities: readonly IdentityConfig[];
  readonly lock: Lock;
  readonly entries: readonly RegistryEntry[];
  readonly byNameOrId: ReadonlyMap<string, IdentityConfig>;
  readonly candidatesFor: (caller: Caller) => readonly RegistryEntry[];
  readonly asksForParents: boolean;
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
  return { identities, lock, entries, byNameOrId, candidatesFor: indexEntries(entries), asksForParents };
}

/** The first thing that does not hold, or undefined if the identity follows. All that is given must hold; what asks for nothing follows for nobody. */
function firstFailure(
  identity: IdentityConfig,
  selectors: readonly RequiredSelector[],
  caller: Caller,
): { failed: string; detail: string } | undefined {
  for (const required of selectors) {
    const found = required.found(caller.facts);
    if (required.wanted !== undefined && found.includes(required.wanted)) continue;
    return { failed: required.selector, detail: required.explain(caller.facts) };
  }
  if (identity.launch !== undefined) return launchFailure(identity, caller);
  if (selectors.length > 0) return undefined;
  return identity.service === undefined
    ? { failed: "nothing", detail: "the entry names nothing that a process could prove" }
    : { failed: "service", detail: `the relay speaks as it for the service ${identity.service}; no process gets it` };
}

function launchFailure({ name }: IdentityConfig, caller: Caller): { failed: string; detail: string } | undefined {
  if (caller.launch === name) return undefined;
  const is = caller.launch === undefined ? "was not launched by agentid" : `was launched as ${caller.launch}`;
  return { failed: "launch", detail: `only \`agentid run ${name}\` gives it; this process ${is}` };
}

/** Everything that `identity` asks for, each with whether it holds. */
function examined({ identity, selectors }: RegistryEntry, caller: Caller, revoked: boolean): ExaminedIdentity {
  const asked = selectors.map(({ selector, wanted, found, explain }) => {
    const holds = wanted !== undefined && found(caller.facts).includes(wanted);
    return { what: selector, holds, detail: holds ? "" : explain(caller.facts) };
  });
  if (identity.launch !== undefined) {
    const failure = launchFailure(identity, caller);
    asked.push({ what: "launch", holds: failure === undefined, detail: failure?.detail ?? "" });
  }
  const failure = asked.length === 0 ? firstFailure(identity, selectors, caller) : undefined;
  if (failure !== undefined) asked.push({ what: failure.failed, holds: false, detail: failure.detail });
  if (revoked) asked.push({ what: "revoked", holds: false, detail: revokedDetail(identity) });
  return { identity, asked };
}

function revokedDetail({ name }: IdentityConfig): string {
  return `it was revoked; \`agentid revoke --undo ${name}\` gives it back`;
}

/** As strong as the weakest thing it rests on. */
function evidenceOf(identity: IdentityConfig, facts: ProcessFacts): Evidence {
  const asks = Object.keys(identity.facts).length > 0;
  if (asks && facts.evidence === "weak") return "weak";
  if (asksForParent(identity)) return "parent";
  return identity.launch === undefined ? facts.evidence : "launch";
}
