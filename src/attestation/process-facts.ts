/** How strong the evidence behind a fact or an identity is. `weak` names a fact read without a handle that cannot be swapped. */
export type Evidence = "kernel" | "launch" | "parent" | "weak";

/**
 * What the kernel says of a process, read through handles that cannot be swapped and checked again after hashing.
 * A fact that the kernel refused is absent, and `missing` says why.
 */
export interface ProcessFacts {
  readonly pid: number;
  readonly startTime: bigint;
  readonly execGeneration: string | undefined;
  readonly uid: number;
  readonly user: string | undefined;
  readonly gid: number;
  readonly group: string | undefined;
  readonly supplementaryGids: readonly number[];
  readonly supplementaryGroups: readonly string[];
  readonly exePath: string | undefined;
  /** Lower-case hex SHA-256 of the executable. */
  readonly exeSha256: string | undefined;
  /** Path of the control group as seen from here. */
  readonly cgroup?: string | undefined;
  /** `cron.service`; `user@1000.service` for everything that a user's own manager runs. */
  readonly systemdUnit?: string | undefined;
  /** The unit of the user's own manager. */
  readonly systemdUserUnit?: string | undefined;
  /** 64 hex digits. */
  readonly containerId?: string | undefined;
  readonly podUid?: string | undefined;
  readonly parentExePath?: string | undefined;
  /** Lower-case hex. */
  readonly parentExeSha256?: string | undefined;
  /** macOS: who signed the running code. */
  readonly signingTeam?: string | undefined;
  readonly signingIdentifier?: string | undefined;
  readonly evidence: "kernel" | "weak";
  /** Why the evidence is weak, for people. */
  readonly weakness?: string | undefined;
  /** Fact name → why the kernel did not give it. */
  readonly missing: Readonly<Record<string, string>>;
  /** For display only: a process can rewrite it. */
  readonly commandLine: readonly string[];
}

/** A selector as SPIRE writes it: `unix:uid:1000`. */
export type Selector = string;

/** The facts of a process that was moved to another control group. */
export function withoutCgroup(facts: ProcessFacts): ProcessFacts {
  return without(facts, CGROUP_FACTS, "it was moved to another cgroup since it connected");
}

/** The facts of a process whose parent has exited or executed another program. */
export function withoutParent(facts: ProcessFacts): ProcessFacts {
  return without(facts, PARENT_FACTS, "its parent has exited or executed another program since it connected");
}

/** Everything that a control group tells. */
export const CGROUP_FACTS = ["cgroup", "systemdUnit", "systemdUserUnit", "containerId", "podUid"] as const;
const PARENT_FACTS = ["parentExePath", "parentExeSha256"] as const;

function without(facts: ProcessFacts, ended: readonly (keyof ProcessFacts)[], why: string): ProcessFacts {
  const gone = (value: string | undefined) => Object.fromEntries(ended.map((fact) => [fact, value]));
  return { ...facts, ...gone(undefined), missing: { ...facts.missing, ...gone(why) } } as ProcessFacts;
}
