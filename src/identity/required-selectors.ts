import { CGROUP_FACTS, type ProcessFacts, type Selector } from "../attestation/process-facts.js";
import { SELECTOR_KINDS, type SelectorKind } from "../attestation/selectors.js";
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

/** Every fact that an entry may ask for is a selector, by the same name. */
const KINDS: { readonly [Fact in keyof Required<RequiredFacts>]: SelectorKind } = SELECTOR_KINDS;

/** What `identity` asks of a process, in a fixed order: cheap and stable facts first. */
export function requiredSelectors(identity: IdentityConfig, lock: Lock): readonly RequiredSelector[] {
  const required: RequiredSelector[] = [];
  for (const name of Object.keys(KINDS) as (keyof RequiredFacts)[]) {
    const value = identity.facts[name];
    if (value === undefined) continue;
    const pinned = name === "exeSha256" && value === "pinned";
    const wanted = pinned ? lockedDigest(identity, lock) : String(value);
    required.push(requiredSelector(KINDS[name], wanted));
  }
  return required;
}

/** Whether the identity rests on what the process's parent runs. */
export function asksForParent({ facts }: Pick<IdentityConfig, "facts">): boolean {
  return facts.parentExePath !== undefined || facts.parentExeSha256 !== undefined;
}

/** Whether the identity rests on the process's control group, or on what that names. */
export function asksForCgroup({ facts }: Pick<IdentityConfig, "facts">): boolean {
  return CGROUP_FACTS.some((fact) => facts[fact] !== undefined);
}

function lockedDigest(identity: IdentityConfig, lock: Lock): string | undefined {
  return Object.hasOwn(lock.identities, identity.name) ? lock.identities[identity.name]?.exe.sha256 : undefined;
}

function requiredSelector(reader: SelectorKind, wanted: string | undefined): RequiredSelector {
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
