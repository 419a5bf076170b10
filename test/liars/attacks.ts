/** A way to be taken for somebody else, or to administer without being the owner. */
export interface Attack {
  readonly id: string;
  readonly group: "identity" | "launch" | "administration";
  /** What is tried. */
  readonly tries: string;
  /** What answers it; `works: ` and what it gains, where nothing does. */
  readonly answer: string;
  /** Test file → the titles, as they stand in it, of the tests that try it with real processes. */
  readonly shownBy: Readonly<Record<string, readonly string[]>>;
  /** Checks switched off, with which one of these tests goes red; none where nothing answers. */
  readonly mutants: readonly string[];
}

const HELD = "test/attestation/held-facts.test.ts";
const ATTESTOR = "test/attestation/attestor.test.ts";
const CACHE = "test/attestation/hash-cache.test.ts";
const TCP = "test/attestation/tcp-callers.test.ts";
const SURROUNDINGS = "test/attestation/surroundings.test.ts";
const LAUNCHES = "test/attestation/launches.test.ts";
const DESCENT = "test/attestation/descent.test.ts";
const ADMINISTRATOR = "test/attestation/administrator.test.ts";
const WORKLOAD = "test/workload-api/callers.test.ts";
const RUN = "test/launch/run.test.ts";
const SUBAGENTS = "test/e2e/launches.test.ts";
const INSTANCES = "test/e2e/instances.test.ts";
const ISSUED = "test/identity/launched-credentials.test.ts";
const CALLS = "test/e2e/calls.test.ts";
const ORPHANS = "test/e2e/orphans.test.ts";
const WALLS = "test/e2e/sandbox.walls.test.ts";
const DOOR = "test/e2e/sandbox.door.test.ts";
const RACE = "test/liars/race.test.ts";
const SYSTEMD = "test/liars/systemd.test.ts";
const EXECS = "test/liars/hidden-execs.test.ts";
const REPARENTING = "test/liars/reparenting.test.ts";
const ADMINISTRATION = "test/liars/administration.test.ts";

const THE_RACE = "hands out no identity that is not the one of the process that asked";

/** The index of what is tried against identity and administration. The table in docs/threat-model.md is this list. */
export const attacks: readonly Attack[] = [
  {
    id: "number-used-again",
    group: "identity",
    tries: "a process exits, and another one comes to life under its number (SPIRE #6035)",
    answer: "the pidfd of the connection and the open `/proc` folder stay with the first",
    shownBy: {
      [HELD]: ["names another process, and neither the connection nor the handle follow it there"],
      [RACE]: [THE_RACE],
    },
    mutants: ["pidfd-alive"],
  },
  {
    id: "exec-after-connect",
    group: "identity",
    tries: "a pinned program connects, then executes another one (SPIRE's open gap)",
    answer: "the memory image and the exec generation are compared before every answer",
    shownBy: {
      [ATTESTOR]: ["that executes another program after connecting is not the caller any more"],
      [WORKLOAD]: ["gets nothing after it has become another program"],
      [RACE]: [THE_RACE],
    },
    mutants: ["exec-after-connect", "workload-recheck"],
  },
  {
    id: "exec-of-the-same",
    group: "identity",
    tries: "the same, with the same executable: start time, digest and path stay",
    answer: "as above",
    shownBy: { [ATTESTOR]: ["that executes the same program again is not the caller any more"], [RACE]: [THE_RACE] },
    mutants: ["exec-after-connect"],
  },
  {
    id: "exec-with-a-forged-generation",
    group: "identity",
    tries: "the new program gives itself the old one's stack and argument addresses (`PR_SET_MM_MAP`)",
    answer: "the held memory image has ended",
    shownBy: { [EXECS]: ["is noticed, also when the new program takes the old one's addresses for its own"] },
    mutants: ["held-program"],
  },
  {
    id: "exec-behind-shared-memory",
    group: "identity",
    tries: "the same, while another process keeps the old memory image alive (`CLONE_VM`)",
    answer:
      "works: a process that has the identity lets another program of its choice have it, as it could by answering its questions",
    shownBy: {
      [EXECS]: [
        "goes unnoticed when the old memory lives on in another process and the addresses are forged: it could lend its voice as well",
      ],
    },
    mutants: [],
  },
  {
    id: "exec-before-accept",
    group: "identity",
    tries:
      "a process connects, hands the connection on, and executes a pinned program before the daemon takes the connection",
    answer:
      "works: whoever has the connection speaks for the pinned program; only as the same user, who could start that program in his own way anyway",
    shownBy: { [EXECS]: ["before the connection is taken makes it the new program's, also for whoever else holds it"] },
    mutants: [],
  },
  {
    id: "connection-handed-on",
    group: "identity",
    tries: "a connection is given to another process (`SCM_RIGHTS`), or inherited by a child",
    answer: "it speaks for who opened it, and ends with that process's program",
    shownBy: {
      [HELD]: ["keeps speaking for the process that opened it, and ends with that process's program"],
      [WORKLOAD]: ["gets nothing once the process that connected has exited"],
      [RACE]: [THE_RACE],
    },
    mutants: ["workload-recheck"],
  },
  {
    id: "change-of-user",
    group: "identity",
    tries: "a process connects as one user and asks as another",
    answer: "the user at connect time must be the user now",
    shownBy: {
      [ATTESTOR]: ["of another user has that user's selectors, and loses its connection's word when it changes user"],
      [RACE]: [THE_RACE],
    },
    mutants: ["same-user"],
  },
  {
    id: "executable-replaced",
    group: "identity",
    tries: "the executable's file is deleted, or another one put in its place, while it runs",
    answer: "the digest is of what runs; the path is none",
    shownBy: { [HELD]: ["that is deleted while it runs has its digest and no path"] },
    mutants: ["path-of-the-same-file"],
  },
  {
    id: "path-in-a-mount-namespace",
    group: "identity",
    tries: "another file stands at the pinned path in a mount namespace of the liar's own (SPIRE #1403)",
    answer: "a path is a fact only if it leads us to the file that runs",
    shownBy: { [HELD]: ["has the path that it has here, whatever the process's own mount namespace calls it"] },
    mutants: ["path-of-the-same-file"],
  },
  {
    id: "executable-named-by-itself",
    group: "identity",
    tries: "a process in a user namespace of its own has the kernel name another executable (`PR_SET_MM_EXE_FILE`)",
    answer: "neither path nor digest in another user namespace",
    shownBy: { [HELD]: ["lets a process name any file as its executable: such a one has neither path nor digest"] },
    mutants: ["user-namespace"],
  },
  {
    id: "root-in-a-user-namespace",
    group: "identity",
    tries: "to be root by a user namespace",
    answer: "the user is the one outside",
    shownBy: { [HELD]: ["makes nobody root: the user is the one outside"] },
    mutants: ["root-of-a-user-namespace"],
  },
  {
    id: "another-pid-namespace",
    group: "identity",
    tries: "a caller outside the daemon's PID namespace has the same number as a process inside",
    answer: "who has no number here is nobody",
    shownBy: {
      [HELD]: ["above ours, or beside it, is not visible: nobody, and never the process that has the same number here"],
    },
    mutants: ["peer-in-other-pid-namespace"],
  },
  {
    id: "digest-of-another-content",
    group: "identity",
    tries: "a file is written, and size and times are set back, so that its old digest is still believed",
    answer: "ctime cannot be set; a digest is kept only where times show every write, and for a file that has settled",
    shownBy: {
      [CACHE]: [
        "a file that was written, with its times set back",
        "a file that was truncated and filled again to its size, with its times set back",
        "a file of the same size and times that was put in its place",
      ],
    },
    mutants: ["hash-cache-ctime"],
  },
  {
    id: "digest-by-a-hard-link",
    group: "identity",
    tries: "the same, through another name of the file",
    answer: "as above",
    shownBy: { [CACHE]: ["a file that was written under another name of it"] },
    mutants: ["hash-cache-ctime"],
  },
  {
    id: "digest-by-a-shared-mapping",
    group: "identity",
    tries: "the same, through a shared mapping",
    answer: "as above; nothing is kept on filesystems where that shows in no time",
    shownBy: {
      [CACHE]: ["a file that was written through a shared mapping", "tmpfs is local, and its times are not believed"],
    },
    mutants: ["hash-cache-ctime", "tmpfs-times"],
  },
  {
    id: "digest-by-the-clock",
    group: "identity",
    tries: "the clock is set back, so that the same ctime comes twice",
    answer: "every digest is forgotten",
    shownBy: { [CACHE]: ["anything hashed before the clock was set back, when the same ctime can come a second time"] },
    mutants: ["hash-cache-clock"],
  },
  {
    id: "digest-while-it-changes",
    group: "identity",
    tries: "a file is changed while it is hashed, or so late that a coarse clock does not show it",
    answer: "no digest; nothing is kept of a file that has not settled",
    shownBy: {
      [CACHE]: [
        "a file that changes while it is hashed has no digest",
        "caches only what has settled and lies where times show every write",
      ],
    },
    mutants: ["changed-while-hashed", "hash-cache-settled"],
  },
  {
    id: "digest-too-dear",
    group: "identity",
    tries: "a huge executable makes the daemon hash for ever",
    answer: "above the limit there is no digest, and hashing blocks nobody",
    shownBy: { [CACHE]: ["a file above the limit is not read"] },
    mutants: ["executable-too-large"],
  },
  {
    id: "written-while-it-runs",
    group: "identity",
    tries: "to write into the executable of a running process",
    answer: "the kernel refuses (`ETXTBSY`); on kernels that do not, nothing is kept",
    shownBy: {
      [CACHE]: ["an executable that runs cannot be written, nor one be executed that somebody may still write"],
    },
    mutants: ["writers-kept-out"],
  },
  {
    id: "code-in-a-pinned-program",
    group: "identity",
    tries: "to start a pinned executable with code of one's own in it (`LD_PRELOAD`, `NODE_OPTIONS`, `python -c`)",
    answer:
      "works for entries that name facts only (`exe`): they say which file runs, not which code; `launch` entries take such variables away",
    shownBy: {
      [RUN]: ["removes what loads code or looks like a secret, keeps what the entry keeps, sets what the daemon sets"],
    },
    mutants: ["environment-that-loads-code"],
  },
  {
    id: "name-and-arguments",
    group: "identity",
    tries: "to say in its name, arguments or environment that it is an agent (SPIRE #3160, #2426)",
    answer: "what a process says of itself is no evidence",
    shownBy: { [CALLS]: ["a process nobody launched has no identity, whatever it says of itself"], [RACE]: [THE_RACE] },
    mutants: ["arguments-are-evidence"],
  },
  {
    id: "port-that-changes-hands",
    group: "identity",
    tries: "a TCP connection is closed, and its port used by another process, while its owner is looked for",
    answer: "both ends are looked up before and after, and ours must be the accepted socket",
    shownBy: {
      [TCP]: [
        "is never another process, however quickly the port changes hands while it is looked for",
        "is nobody for a connection that was reset, also when another process has one between the same ends by now",
      ],
    },
    mutants: ["accepted-connection"],
  },
  {
    id: "shared-tcp-connection",
    group: "identity",
    tries: "a TCP connection is held by several processes",
    answer: "it is nobody's",
    shownBy: {
      [TCP]: ["is nobody once a second process holds the connection, and a process that has it alone again is found"],
      [ATTESTOR]: ["names its process; a shared one names nobody"],
    },
    mutants: ["shared-connection"],
  },
  {
    id: "socket-given-before-launch",
    group: "identity",
    tries: "an agent is started with a socket that the liar keeps and connects later",
    answer: "a launched process answers only for sockets that nobody else has",
    shownBy: { [TCP]: ["does not answer for a socket that it was given before its program began"] },
    mutants: ["launched-holder-alone"],
  },
  {
    id: "socket-of-an-orphan",
    group: "identity",
    tries:
      "a child, an orphan or a receiver (`SCM_RIGHTS`) of an agent's has the agent's TCP socket too, and speaks on it",
    answer:
      "all processes are searched for the socket before the agent answers for it; once attested, a connection is the agent's to lend",
    shownBy: {
      [TCP]: [
        "is found while it alone holds the connection, and is nobody once a child has it too",
        "is nobody once an orphan of its own making has the connection too",
        "is nobody once it has handed its connection on, until one of the two lets go",
      ],
    },
    mutants: ["launched-holder-alone"],
  },
  {
    id: "socket-in-a-threads-table",
    group: "identity",
    tries:
      "a thread keeps an agent's TCP socket in a descriptor table of its own, where `/proc/PID/fd` does not show it",
    answer: "the tables of all threads are searched",
    shownBy: {
      [TCP]: ["is nobody while a thread elsewhere keeps the connection in a descriptor table of its own"],
    },
    mutants: ["tables-of-all-threads"],
  },
  {
    id: "another-network-namespace",
    group: "identity",
    tries: "a connection of another network namespace has the same ends as one of ours",
    answer: "it is not in our tables",
    shownBy: { [TCP]: ["is unknown for a connection of another network namespace"] },
    mutants: ["tables-of-other-networks"],
  },
  {
    id: "another-cgroup",
    group: "identity",
    tries: "a process enters a unit's cgroup, or leaves it after it was attested",
    answer: "the kernel lets no ordinary user in; a cgroup that was left is a fact no more",
    shownBy: {
      [SURROUNDINGS]: [
        "cannot be entered by an ordinary user",
        "gives the unit's identity while the process is in it, and the caller goes on without when it is moved",
      ],
      [SYSTEMD]: [
        "gives what asks for a unit of the system to what root starts in it, and to nothing that an agent can start or move",
      ],
    },
    mutants: ["cgroup-rechecked"],
  },
  {
    id: "another-unit",
    group: "identity",
    tries: "a unit by another's name: a group called so below its own, or names that systemd must write in another way",
    answer:
      "the unit is the one that systemd itself says; below the user's own manager anybody starts a unit by any name",
    shownBy: {
      [SYSTEMD]: [
        "names units as systemd itself does, and the unit that an agent starts under a name has what asks for that name only",
      ],
      "test/platform/linux-cgroup.test.ts": ["%s names %j"],
    },
    mutants: ["first-unit"],
  },
  {
    id: "another-parent",
    group: "identity",
    tries: "a process rests on a parent that has exited, or has become another program",
    answer: "the parent is held as its child is, and compared before every answer",
    shownBy: { [SURROUNDINGS]: ["is attested as the child's own is, and gives weaker evidence"] },
    mutants: ["parent-evidence"],
  },
  {
    id: "storm",
    group: "identity",
    tries: "all of the kernel's races at once: two users, several executables, launches, numbers that come round",
    answer: "every SVID is that of the process that got it",
    shownBy: { [RACE]: [THE_RACE] },
    mutants: ["workload-recheck"],
  },
  {
    id: "launch-of-something-else",
    group: "launch",
    tries: "`agentid run billing -- something else`, another folder, a changed script",
    answer: "refused with the difference",
    shownBy: {
      [CALLS]: [
        "another command, folder or name is refused with the difference",
        "a changed script is refused with both digests, until it is pinned again",
      ],
    },
    mutants: ["launch-of-another-command"],
  },
  {
    id: "launch-becomes-another",
    group: "launch",
    tries: "a granted launch executes another program, or the pinned one with other arguments",
    answer: "the identity begins only as the pinned executable with the pinned command line",
    shownBy: { [LAUNCHES]: ["passes through shims without giving them the identity"], [RACE]: [THE_RACE] },
    mutants: ["launch-digest", "launch-command-line"],
  },
  {
    id: "launch-executes-on",
    group: "launch",
    tries: "an agent executes another program, and comes back to the pinned one",
    answer: "the identity has ended for ever",
    shownBy: {
      [CALLS]: ["the identity ends at the next exec, for ever"],
      [LAUNCHES]: ["begins when the process has become the pinned program, and ends at its next exec, for ever"],
      [RACE]: [THE_RACE],
    },
    mutants: ["launch-ends-for-ever"],
  },
  {
    id: "launch-number-used-again",
    group: "launch",
    tries: "the same executable with the same command line, under the number of an agent that has exited",
    answer: "the launch is held by a pidfd",
    shownBy: { [LAUNCHES]: ["is not granted to a number that means another process now"], [RACE]: [THE_RACE] },
    mutants: ["launch-start-time"],
  },
  {
    id: "launch-of-a-child",
    group: "launch",
    tries: "a child of an agent asks for itself",
    answer:
      "it has the identity only where the entry says `children`, by a chain of parents that is looked at every time",
    shownBy: {
      [DESCENT]: [
        "is that of its children and theirs; nobody else has it, and nobody where nobody asked for it",
        "ends when a process between them exits or executes something else",
      ],
      [RACE]: [THE_RACE],
    },
    mutants: ["descent-rechecked"],
  },
  {
    id: "launch-behind-a-shim",
    group: "launch",
    tries: "a shim starts a process before it becomes the pinned program, so that it passes for its child",
    answer: "nobody descends from a program that others were there before",
    shownBy: { [DESCENT]: ["is nobody's while a process lives that a shim has started before the program"] },
    mutants: ["descent-solitude"],
  },
  {
    id: "launch-files-swapped",
    group: "launch",
    tries: "a pinned script is swapped between the check and the interpreter's read, and put back",
    answer: "pinned files are compared when the identity begins, and watched as long as it lives",
    shownBy: { [DESCENT]: ["with its files as they were pinned, and ends when one is touched"] },
    mutants: ["launch-files-at-start", "launch-files-swapped-back", "launch-files-later"],
  },
  {
    id: "launch-that-has-ended",
    group: "launch",
    tries:
      "certificate or token of an instance that has ended are used on, also once another instance has its name, or after a restart",
    answer:
      "both are good for the launch alone that they were issued to; its certificates are revoked when it ends, before the next one of its name begins",
    shownBy: {
      [INSTANCES]: [
        "are good for its own launch alone: not for nobody, not for the next one of its name, not after a restart",
      ],
      [DESCENT]: ["has ended before the next one of its name begins, also where nobody has seen its exit yet"],
      [ISSUED]: [
        "is refused when it has ended, and stays so when its name is used again; what the next one is issued is good",
      ],
    },
    mutants: ["instance-end", "instance-end-noticed", "instance-certificates-forgotten", "instance-tokens"],
  },
  {
    id: "launch-by-own-means",
    group: "launch",
    tries:
      "a process of the owner's asks for the launch itself, and starts the pinned program with code of its own in it",
    answer: "works: only for a process that may administer anyway; an agent may ask for its sub-agents only",
    shownBy: {
      [RACE]: [THE_RACE],
      [SUBAGENTS]: ["are only those that the entry names, and an agent gets nothing else over the control socket"],
    },
    mutants: ["subagents-named"],
  },
  {
    id: "launch-without-its-sandbox",
    group: "launch",
    tries: "a sandboxed launch with no sandbox, or one with a hole",
    answer: "the daemon looks at the walls from outside before it grants",
    shownBy: { [DOOR]: ["refuses %s, on record"] },
    mutants: ["sandbox-namespaces", "sandbox-sees"],
  },
  {
    id: "administer-as-agent",
    group: "administration",
    tries: "an agent, its child, its shell or a session that it made asks the control socket",
    answer: "refused: its chain of parents has an agent in it",
    shownBy: {
      [ADMINISTRATION]: [
        "is refused itself, and so are its child, its shell, its session and its orphan; the owner is not",
      ],
      [ADMINISTRATOR]: ["is not for an agent, its child, or its shell's child"],
    },
    mutants: ["agent-may-not-administer"],
  },
  {
    id: "administer-as-orphan",
    group: "administration",
    tries: "a double fork, so that init is the parent (`setsid -f`, `nohup … &`)",
    answer: "refused: nothing shows who started it (“use the dashboard”)",
    shownBy: {
      [ADMINISTRATOR]: ["is not for an orphan, whoever it was: a double fork and setsid hide the agent"],
      [ORPHANS]: ["is refused by the control socket, and its own agentid dev still has its dashboard"],
      [ADMINISTRATION]: [
        "is refused itself, and so are its child, its shell, its session and its orphan; the owner is not",
      ],
    },
    mutants: ["orphan-may-not-administer"],
  },
  {
    id: "administer-by-systemd-run",
    group: "administration",
    tries:
      "the user's own systemd starts it: `systemd-run --user` as service, scope or timer, a unit file, an orphan of a unit",
    answer:
      "refused: everything that manager starts has it as its parent, and it adopts orphans too; in a sandbox there is neither its socket nor the bus",
    shownBy: {
      [SYSTEMD]: [
        "refuses what the user's manager starts for an agent (systemd-run --user): as service, scope, timer, unit file, orphan; the owner it does not",
        "finds neither the user's manager nor its bus in the sandbox",
      ],
      [ADMINISTRATOR]: [
        "is not for a young child of a process of systemd's name, which adopts orphans and starts what it is told",
      ],
    },
    mutants: ["systemd-is-an-adopter"],
  },
  {
    id: "administer-by-bus-activation",
    group: "administration",
    tries: "a service file for the session's `dbus-daemon`, which is older than the first agent and starts it itself",
    answer: "works outside a sandbox: it gains the owner's word; in a sandbox there is no bus",
    shownBy: {
      [SYSTEMD]: [
        "gets around by a service that the user's dbus-daemon starts, which is older than any agent",
        "finds neither the user's manager nor its bus in the sandbox",
      ],
    },
    mutants: [],
  },
  {
    id: "administer-as-a-subreapers-orphan",
    group: "administration",
    tries: "the same below a subreaper, whatever its name (`PR_SET_CHILD_SUBREAPER`), in its session or another",
    answer:
      "`agentid run` tries with an orphan of its own who adopts; from then on that process's new children are refused as init's are",
    shownBy: {
      [REPARENTING]: [
        "may not administer: %s",
        "and a new child of an ordinary shell above the agent may, for it adopts nobody",
        "where the launcher could not try it, everything above the agent counts as one",
      ],
    },
    mutants: ["adopter-may-be-a-parent", "adopter-not-known", "adopter-guessed"],
  },
  {
    id: "administer-as-a-farther-subreapers-orphan",
    group: "administration",
    tries:
      "the same where subreapers are nested: the agent ends the nearer one, so that the next above adopts its orphans",
    answer: "everything above the nearest one counts as one too",
    shownBy: { [REPARENTING]: ["may not administer when the agent has ended the nearer of two subreapers"] },
    mutants: ["adopter-above-adopter"],
  },
  {
    id: "administer-as-a-containers-orphan",
    group: "administration",
    tries: "the same below the init of a PID namespace that is older than the agent in it",
    answer:
      "what a launcher in another PID namespace says of its adopter is not ours to read: everything above it counts as one",
    shownBy: { [REPARENTING]: ["may not administer where the init of another PID namespace has adopted it"] },
    mutants: ["adopter-in-a-pid-namespace"],
  },
  {
    id: "administer-as-a-sibling",
    group: "administration",
    tries: "an agent makes a process that is its parent's child from the beginning (`CLONE_PARENT`)",
    answer:
      "works outside a sandbox: nothing tells it from what that parent, the owner's shell, starts itself; in a sandbox there is no control socket",
    shownBy: {
      [REPARENTING]: ["may administer as a sibling of the agent, for it cannot be told from what its parent starts"],
    },
    mutants: [],
  },
  {
    id: "administer-while-reparented",
    group: "administration",
    tries: "to be adopted between two looks at the chain of parents",
    answer: "the chain is read twice",
    shownBy: { [ADMINISTRATOR]: ["is refused while the parents change"] },
    mutants: ["chain-read-twice"],
  },
  {
    id: "administer-by-an-old-connection",
    group: "administration",
    tries: "a process opens the control socket, becomes an agent, and asks on that connection",
    answer: "every request is asked who sends it",
    shownBy: { [ADMINISTRATION]: ["is refused on a connection that it opened before it was an agent"] },
    mutants: ["agent-itself-may-not-administer"],
  },
  {
    id: "administer-by-tmux",
    group: "administration",
    tries:
      "`tmux send-keys` or `new-window`; cron, at and every other program that starts what it is told and is older than the first agent",
    answer:
      "works outside a sandbox: it gains the owner's word (accept a widening, pin, revoke); in a sandbox there is no such socket",
    shownBy: {
      [ADMINISTRATION]: ["gets around by typing into the owner's terminal (tmux send-keys), and not from the sandbox"],
    },
    mutants: [],
  },
  {
    id: "administer-by-ptrace",
    group: "administration",
    tries: "to attach to the owner's shell and let it execute a command",
    answer:
      "works outside a sandbox where the system allows it (`kernel.yama.ptrace_scope` 0): it gains the owner's word, and any agent's identity; in a sandbox nothing outside can be seen",
    shownBy: {
      [ADMINISTRATION]: ["gets around by attaching to the owner's shell (ptrace), and not from the sandbox"],
      [WALLS]: ["sees, signals and traces no process outside, and traces none inside"],
    },
    mutants: [],
  },
  {
    id: "administer-by-files",
    group: "administration",
    tries: "to edit `agentid.yaml`, `policies/` or `agentid.lock`",
    answer:
      "waits as WIDENED, and an agent may not accept it; before the next start it is in force at that start: review. In a sandbox the files are read-only",
    shownBy: {
      [ADMINISTRATION]: [
        "gains nothing by editing what decides: it waits as WIDENED, and the agent may not accept it; in the sandbox the files are read-only",
      ],
      [CALLS]: ["a save that widens waits until it is accepted; a broken save keeps the last good state"],
      [WALLS]: [
        "changes neither configuration nor policies nor lock, nor anything that is not named; what is named it does",
      ],
    },
    mutants: ["widening-waits"],
  },
  {
    id: "administer-from-a-sandbox",
    group: "administration",
    tries: "any of these from inside `agentid run --sandbox`",
    answer: "the control socket does not exist there",
    shownBy: {
      [ADMINISTRATION]: ["reaches no control socket from inside the sandbox, in whatever shape"],
      [WALLS]: [
        "connects to no socket of the machine or the session, by path or abstract; nor to a service's own, nor to control",
      ],
    },
    mutants: ["control-inside"],
  },
];
