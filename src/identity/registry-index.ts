import type { Caller } from "../attestation/caller.js";
import type { ProcessFacts } from "../attestation/process-facts.js";
import { selectorsOf } from "../attestation/selectors.js";
import type { IdentityConfig } from "../config/config.js";
import type { RequiredSelector } from "./required-selectors.js";

/** An identity and what must hold for it. */
export interface RegistryEntry {
  /** Its place in the configuration (D9). */
  readonly order: number;
  readonly identity: IdentityConfig;
  readonly selectors: readonly RequiredSelector[];
}

/**
 * Finds the entries that may follow for a caller without looking at all of them: each is kept under the one thing that it asks for and that the
 * fewest others ask for too. An entry that is not among the candidates cannot follow, because that one thing does not hold; those that are must
 * still be checked in full. In the order of the configuration.
 */
export function indexEntries(
  entries: readonly RegistryEntry[],
): (caller: Pick<Caller, "facts" | "launch">) => readonly RegistryEntry[] {
  const askedFor = new Map<string, number>();
  for (const entry of entries) for (const key of keysOf(entry)) askedFor.set(key, (askedFor.get(key) ?? 0) + 1);
  const byKey = new Map<string, RegistryEntry[]>();
  for (const entry of entries) {
    const rarest = keysOf(entry).reduce<string | undefined>(
      (best, key) => (best !== undefined && countOf(askedFor, best) <= countOf(askedFor, key) ? best : key),
      undefined,
    );
    // What asks for nothing follows for nobody.
    if (rarest === undefined) continue;
    const list = byKey.get(rarest);
    if (list === undefined) byKey.set(rarest, [entry]);
    else list.push(entry);
  }
  /** Facts are replaced, never changed; only a launch may begin and end beside them. */
  const held = new WeakMap<ProcessFacts, readonly RegistryEntry[]>();
  const inOrder = (found: readonly RegistryEntry[]) => [...found].sort((one, other) => one.order - other.order);

  return ({ facts, launch }) => {
    let found = held.get(facts);
    if (found === undefined) {
      found = inOrder(selectorsOf(facts).flatMap((selector) => byKey.get(selector) ?? []));
      held.set(facts, found);
    }
    const launched = launch === undefined ? undefined : byKey.get(launchKey(launch.name));
    return launched === undefined ? found : inOrder([...found, ...launched]);
  };
}

/** What a caller must have for `entry`, each as a word; one selector that can never hold makes the entry follow for nobody. */
function keysOf({ identity, selectors }: RegistryEntry): readonly string[] {
  const keys = selectors.map(({ selector }) => selector);
  return identity.launch === undefined ? keys : [...keys, launchKey(identity.name)];
}

function launchKey(name: string): string {
  return `launch:${name}`;
}

function countOf(counts: ReadonlyMap<string, number>, key: string): number {
  return counts.get(key) ?? 0;
}
