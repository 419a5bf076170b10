import type { Caller } from "./caller.js";
import { launchedName } from "./launched-process.js";
import type { ProcessFacts } from "./process-facts.js";

/** Where a fact comes from and what it is worth, as a reviewer wants to know it. docs/attestation.md has the same words; a test compares them. */
export interface FactDescription {
  readonly name: string;
  /** The fact's name in `ProcessFacts.missing`. */
  readonly fact: string;
  readonly source: string;
  /**
   * `kernel`: only root can make it up. `user`: a process of the same user can bring it about. `parent`: whoever can make the parent start something.
   * `none`: for people only.
   */
  readonly strength: "kernel" | "launch" | "user" | "parent" | "none";
  readonly forgedBy: string;
  read(caller: Pick<Caller, "facts" | "launch">): string | undefined;
}

const of =
  (read: (facts: ProcessFacts) => string | number | undefined) =>
  ({ facts }: Pick<Caller, "facts">): string | undefined => {
    const value = read(facts);
    return value === undefined || value === "" ? undefined : String(value);
  };

const EXE_FORGERY =
  "a process of the same user that loads code into the program it starts (LD_PRELOAD, ptrace), or shares memory with a process in a user namespace";
const USER_MANAGER = "any process of that user (`systemd-run --user`)";

export const FACT_DESCRIPTIONS: readonly FactDescription[] = [
  {
    ...{ name: "uid", fact: "uid", strength: "kernel", forgedBy: "root" },
    source: "SO_PEERCRED at connect, /proc/PID/status before every answer",
    read: of((facts) => facts.uid),
  },
  {
    ...{ name: "user", fact: "user", strength: "kernel", forgedBy: "root" },
    source: "/etc/passwd, for the uid",
    read: of((facts) => facts.user),
  },
  {
    ...{
      name: "gid",
      fact: "gid",
      strength: "kernel",
      forgedBy: "root; a set-group-ID program that executes what it is told",
    },
    source: "SO_PEERCRED at connect, /proc/PID/status before every answer",
    read: of((facts) => facts.gid),
  },
  {
    ...{ name: "group", fact: "group", strength: "kernel", forgedBy: "as gid" },
    source: "/etc/group, for the gid",
    read: of((facts) => facts.group),
  },
  {
    ...{ name: "groups", fact: "supplementaryGids", strength: "kernel", forgedBy: "root" },
    source: "/proc/PID/status before every answer",
    read: of((facts) => facts.supplementaryGids.join(" ")),
  },
  {
    ...{ name: "path", fact: "exePath", strength: "user", forgedBy: EXE_FORGERY },
    source: "/proc/PID/exe, if that path leads to the same file here",
    read: of((facts) => facts.exePath),
  },
  {
    ...{ name: "sha256", fact: "exeSha256", strength: "user", forgedBy: EXE_FORGERY },
    source: "/proc/PID/exe, opened once and hashed through that descriptor",
    read: of((facts) => facts.exeSha256),
  },
  {
    ...{
      name: "systemd",
      fact: "systemdUnit",
      strength: "kernel",
      forgedBy: "root, and units with Delegate= below themselves",
    },
    source: "/proc/PID/cgroup: the first unit in the path",
    read: of((facts) => facts.systemdUnit),
  },
  {
    ...{ name: "user unit", fact: "systemdUserUnit", strength: "user", forgedBy: USER_MANAGER },
    source: "/proc/PID/cgroup: the first unit below user@UID.service",
    read: of((facts) => facts.systemdUserUnit),
  },
  {
    ...{ name: "cgroup", fact: "cgroup", strength: "kernel" },
    forgedBy: "root; below user@UID.service and delegated units whoever runs there",
    source: "/proc/PID/cgroup, read again before every answer",
    read: of((facts) => facts.cgroup),
  },
  {
    ...{ name: "container", fact: "containerId", strength: "kernel" },
    forgedBy: "root and the container runtime; below user@UID.service any process of that user",
    source: "/proc/PID/cgroup: the last name with 64 hex digits",
    read: of((facts) => facts.containerId),
  },
  {
    ...{ name: "pod", fact: "podUid", strength: "kernel", forgedBy: "as container" },
    source: "/proc/PID/cgroup: the kubelet's name for the pod",
    read: of((facts) => facts.podUid),
  },
  {
    ...{ name: "signed by", fact: "signingTeam", strength: "kernel", forgedBy: "root; who has that team's key" },
    source: "csops(CS_OPS_TEAMID), while the kernel enforces the signature",
    read: of((facts) => facts.signingTeam),
  },
  {
    ...{ name: "signed as", fact: "signingIdentifier", strength: "user", forgedBy: "anybody who signs ad hoc" },
    source: "csops(CS_OPS_IDENTITY), while the kernel enforces the signature",
    read: of((facts) => facts.signingIdentifier),
  },
  {
    ...{ name: "parent", fact: "parentExePath", strength: "parent" },
    forgedBy: "whatever can make a process of that program start another, and its children (CLONE_PARENT)",
    source: "the parent's /proc/PID/exe, the parent held as its child is",
    read: of((facts) => facts.parentExePath),
  },
  {
    ...{ name: "parent sha256", fact: "parentExeSha256", strength: "parent", forgedBy: "as parent" },
    source: "the parent's executable, hashed as the child's is",
    read: of((facts) => facts.parentExeSha256),
  },
  {
    ...{ name: "launch", fact: "launch", strength: "launch" },
    forgedBy: "a process of the same user that asks for the launch itself and starts the pinned program in its own way",
    source: "agentid run, then the pinned program behind the same pidfd",
    read: ({ launch }) =>
      launch && launchedName(launch) + (launch.evidence === "parent" ? `, by process ${launch.pid}` : ""),
  },
  {
    ...{ name: "launched by", fact: "launch", strength: "launch", forgedBy: "as launch" },
    source: "the record of the launch",
    read: ({ launch }) => launch?.launchedBy.join(", ") || undefined,
  },
  {
    ...{
      name: "command",
      fact: "commandLine",
      strength: "none",
      forgedBy: "the process itself, at any time: never evidence",
    },
    source: "/proc/PID/cmdline",
    read: of((facts) => facts.commandLine.join(" ")),
  },
];
