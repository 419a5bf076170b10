import type { ProcessFacts, Selector } from "../attestation/process-facts.js";
import type { IdentityConfig, Lock, RequiredFacts } from "../config/config.js";

/** One thing that must hold for a process, in the words of a selector. */
export interface RequiredSelector {
  /** `unix:uid:1000`. */
  readonly selector: Selector;
  /** Undefined where the entry says `pinned` and nothing is pinned: then it never holds. */
  readonly wanted: string | undefined;
  /** What the process has: none, one or several values. */
  found(facts: ProcessFacts): readonly string[];
  /** For people: wanted and found. */
  explain(facts: ProcessFacts): string;
}

interface FactReader {
  readonly prefix: string;
  /** Name of the fact in `ProcessFacts.missing`. */
  readonly fact: keyof ProcessFacts;
  read(facts: ProcessFacts): readonly (string | number | undefined)[];
}

const READERS: { readonly [Fact in keyof Required<RequiredFacts>]: FactReader } = {
  uid: { prefix: "unix:uid", fact: "uid", read: (facts) => [facts.uid] },
  user: { prefix: "unix:user", fact: "user", read: (facts) => [facts.user] },
  gid: { prefix: "unix:gid", fact: "gid", read: (facts) => [facts.gid] },
  group: { prefix: "unix:group", fact: "group", read: (facts) => [facts.group] },
  supplementaryGid: {
    prefix: "unix:supplementary_gid",
    fact: "supplementaryGids",
    read: (facts) => facts.supplementaryGids,
  },
  supplementaryGroup: {
    prefix: "unix:supplementary_group",
    fact: "supplementaryGroups",
    read: (facts) => facts.supplementaryGroups,
  },
  exePath: { prefix: "unix:path", fact: "exePath", read: (facts) => [facts.exePath] },
  exeSha256: { prefix: "unix:sha256", fact: "exeSha256", read: (facts) => [facts.exeSha256] },
};

/** Every selector that holds for a process, as `RequiredSelector.selector` writes it. */
export function selectorsHeld(facts: ProcessFacts): readonly Selector[] {
  return Object.values(READERS).flatMap(({ prefix, read }) =>
    read(facts).flatMap((value) => (value === undefined ? [] : [`${prefix}:${value}`])),
  );
}

/** What `identity` asks of a process, in a fixed order: cheap and stable facts first. */
export function requiredSelectors(identity: IdentityConfig, lock: Lock): readonly RequiredSelector[] {
  const required: RequiredSelector[] = [];
  for (const name of Object.keys(READERS) as (keyof RequiredFacts)[]) {
    const value = identity.facts[name];
    if (value === undefined) continue;
    const pinned = name === "exeSha256" && value === "pinned";
    const wanted = pinned ? lockedDigest(identity, lock) : String(value);
    required.push(requiredSelector(READERS[name], wanted));
  }
  return required;
}

function lockedDigest(identity: IdentityConfig, lock: Lock): string | undefined {
  return Object.hasOwn(lock.identities, identity.name) ? lock.identities[identity.name]?.exe.sha256 : undefined;
}

function requiredSelector(reader: FactReader, wanted: string | undefined): RequiredSelector {
  const selector = `${reader.prefix}:${wanted ?? "pinned"}`;
  const found = (facts: ProcessFacts) =>
    reader
      .read(facts)
      .filter((value) => value !== undefined)
      .map(String);
  return {
    selector,
    wanted,
    found,
    explain(facts) {
      if (wanted === undefined) return "agentid.lock pins no executable for it";
      const has = found(facts);
      const wants = `wanted ${reader.prefix}:${wanted}`;
      if (has.length > 0) return `${wants}, found ${has.map((value) => `${reader.prefix}:${value}`).join(", ")}`;
      const why = facts.missing[reader.fact];
      return `${wants}, found none${why === undefined ? "" : `: ${why}`}`;
    },
  };
}
