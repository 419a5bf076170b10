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
  readonly evidence: "kernel" | "weak";
  /** Fact name → why the kernel did not give it. */
  readonly missing: Readonly<Record<string, string>>;
  /** For display only: a process can rewrite it. */
  readonly commandLine: readonly string[];
}

/** A selector as SPIRE writes it: `unix:uid:1000`. */
export type Selector = string;
