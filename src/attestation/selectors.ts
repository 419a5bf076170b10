import type { ProcessFacts, Selector } from "./process-facts.js";

/** A kind of selector: what it is called and which fact it is made of. */
export interface SelectorKind {
  readonly prefix: string;
  /** Name of the fact in `ProcessFacts.missing`. */
  readonly fact: keyof ProcessFacts;
  read(facts: ProcessFacts): readonly (string | number | undefined)[];
}

/**
 * Cheap and stable facts first. Named as SPIRE's plugins name them (unix, systemd, k8s) where they do, else in a namespace of our own.
 */
export const SELECTOR_KINDS = {
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
  systemdUnit: { prefix: "systemd:id", fact: "systemdUnit", read: (facts) => [facts.systemdUnit] },
  systemdUserUnit: {
    prefix: "agentid:systemd_user_id",
    fact: "systemdUserUnit",
    read: (facts) => [facts.systemdUserUnit],
  },
  cgroup: { prefix: "agentid:cgroup", fact: "cgroup", read: (facts) => [facts.cgroup] },
  containerId: { prefix: "agentid:container_id", fact: "containerId", read: (facts) => [facts.containerId] },
  podUid: { prefix: "k8s:pod-uid", fact: "podUid", read: (facts) => [facts.podUid] },
  signingTeam: { prefix: "agentid:signing_team", fact: "signingTeam", read: (facts) => [facts.signingTeam] },
  signingIdentifier: {
    prefix: "agentid:signing_id",
    fact: "signingIdentifier",
    read: (facts) => [facts.signingIdentifier],
  },
  parentExePath: { prefix: "agentid:parent_path", fact: "parentExePath", read: (facts) => [facts.parentExePath] },
  parentExeSha256: {
    prefix: "agentid:parent_sha256",
    fact: "parentExeSha256",
    read: (facts) => [facts.parentExeSha256],
  },
} as const satisfies Readonly<Record<string, SelectorKind>>;

/** The selectors that follow from a process's facts; an absent fact gives none. */
export function selectorsOf(facts: ProcessFacts): readonly Selector[] {
  return Object.values<SelectorKind>(SELECTOR_KINDS).flatMap(({ prefix, read }) =>
    read(facts).flatMap((value) => (value === undefined ? [] : [`${prefix}:${value}`])),
  );
}
