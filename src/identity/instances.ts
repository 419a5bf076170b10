import type { IdentityConfig } from "../config/config.js";
import { SpiffeId, type TrustDomain } from "../spiffe/spiffe-id.js";

/** Which instances of which entries live now. */
export interface LiveInstances {
  hasInstance(entry: string, instance: string): boolean;
  /** Which launch the instance is, while it lives: another one for each launch of the same name. */
  launchOfInstance(entry: string, instance: string): string | undefined;
  /** Oldest first. */
  readonly instances: readonly { readonly name: string; readonly instance: string }[];
}

export const NO_INSTANCES: LiveInstances = {
  hasInstance: () => false,
  launchOfInstance: () => undefined,
  instances: [],
};

/** The entry with instances whose instance `nameOrId` names, and the instance; whether it lives is not looked at. */
export function entryOfInstance(
  nameOrId: string,
  byNameOrId: ReadonlyMap<string, IdentityConfig>,
): { readonly entry: IdentityConfig; readonly instance: string } | undefined {
  const slash = nameOrId.lastIndexOf("/");
  const entry = slash === -1 ? undefined : byNameOrId.get(nameOrId.slice(0, slash));
  return entry?.launch?.instances === true ? { entry, instance: nameOrId.slice(slash + 1) } : undefined;
}

/** Throws SpiffeIdError for what is no segment of a path. */
export function instanceId(trustDomain: TrustDomain, entry: string, instance: string): SpiffeId {
  return SpiffeId.of(trustDomain, `${entry}/${instance}`);
}

/** One object for each instance of an entry, so that it can be compared by reference. */
const made = new WeakMap<IdentityConfig, Map<string, IdentityConfig>>();

/** The identity of an instance: all that the entry says, under `NAME/INSTANCE`. Throws SpiffeIdError for what is no segment of a path. */
export function instanceIdentity(entry: IdentityConfig, instance: string): IdentityConfig {
  const ofEntry = made.get(entry) ?? new Map<string, IdentityConfig>();
  made.set(entry, ofEntry);
  let identity = ofEntry.get(instance);
  if (identity === undefined) {
    const id = instanceId(entry.id.trustDomain, entry.name, instance);
    identity = { ...entry, name: id.name, id };
    ofEntry.set(instance, identity);
  }
  return identity;
}
