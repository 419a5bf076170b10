/**
 * What agentid asks of the operating system. One file per system implements it (`linux.ts`, `darwin.ts`); nothing else calls the kernel.
 */
export interface Platform {
  readonly name: "linux" | "darwin";

  /**
   * Who is at the other end of an accepted Unix-socket connection, by the kernel's word at connect time
   * (Linux: SO_PEERCRED and SO_PEERPIDFD). `fd` is the accepted descriptor. Throws CodedError `peer-unknown`.
   */
  peerOfUnixSocket(fd: number): PeerCredentials;

  /**
   * Opens handles on a process that cannot come to mean another process. `peer.pidfd`, when present, passes into the handle.
   * Throws CodedError `process-gone`.
   */
  openProcess(peer: PeerCredentials | { pid: number }): ProcessHandle;

  /**
   * Which processes of this host hold the client end of a loopback TCP connection; see OwnerOfConnection. The processes `candidates` are looked at first:
   * one that holds it is answered before all others have been looked at, see HolderOfConnection. `network` is where the connection is, when that
   * is not our own network namespace. Never blocks the event loop long.
   */
  ownerOfTcpConnection(
    connection: TcpEndpoints,
    candidates: readonly number[],
    network?: NetworkView,
  ): Promise<HolderOfConnection>;

  /** The user who holds the client end of a loopback TCP connection in our network namespace; undefined where the kernel does not say at once. */
  userOfTcpConnection(connection: TcpEndpoints): number | undefined;

  /** The network namespace that `pid` is in now, as the kernel names it; undefined where it does not say. */
  networkOf(pid: number): string | undefined;

  /** Holds the socket tables of the network namespace that `pid` is in now. Throws CodedError `process-gone`, `unsupported`. */
  openNetwork(pid: number): NetworkView;

  /** A duplicate of descriptor `fd` of process `pid` (pidfd_getfd), close-on-exec. Throws CodedError `process-gone`, `unsupported`, `system-call-failed`. */
  takeDescriptor(pid: number, fd: number): number;

  /** Whether process `pid` numbers processes as we do; false where the kernel does not say. */
  isInOurPidNamespace(pid: number): boolean;

  /** How far process `pid` is shut in, compared with ourselves. Throws CodedError `process-gone`, `unsupported`. */
  confinementOf(pid: number): Confinement;

  /** PIDs from the parent of `pid` upwards, nearest first, each with what is needed to compare two readings; ends where the kernel stops answering. */
  ancestors(pid: number): readonly Ancestor[];

  /** Makes this process's memory and /proc files unreadable to other processes of the same user (prctl PR_SET_DUMPABLE 0). */
  forbidInspection(): void;

  /** True where evidence of this kind is verified on real machines by our tests (Linux), false where it is only decoded (macOS). */
  readonly verified: boolean;
}

/** The kernel's word on a Unix-socket peer. Absent means the kernel did not say. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** A pidfd that we own and must close through `ProcessHandle.close` (or, if no handle was opened, `closeSync`). */
  readonly pidfd?: number;
  /** macOS: counts every execve; the count at connect time. A process that has another one now is not the peer. */
  readonly pidVersion?: number;
  /** True if the pidfd came from the socket itself (SO_PEERPIDFD), false if opened by number afterwards. */
  readonly pidfdFromSocket: boolean;
}

/** A process held by handles (pidfd, an open /proc/PID directory) so that its number can be reused without fooling us. */
export interface ProcessHandle {
  readonly pid: number;
  /** False as soon as the process has exited, whoever owns its number now. */
  isAlive(): boolean;
  /** Everything cheap, read afresh. Throws CodedError `process-gone`. */
  status(): ProcessStatus;
  /**
   * Opens the executable the kernel runs for this process. Undefined where the kernel refuses (another user's process).
   * The caller closes `fd`. Throws CodedError `process-gone`.
   */
  openExecutable(): OpenExecutable | undefined;
  /** Whether the file open at `fd` is what it executes now; undefined where the kernel refuses to say. Throws CodedError `process-gone`. */
  isExecuting(fd: number): boolean | undefined;
  /** The command line as the process's memory holds it: for display only, a process can rewrite it. */
  commandLine(): readonly string[];
  workingDirectory(): string | undefined;
  /** Living children, of all its threads; undefined where the kernel does not list them. Throws CodedError `process-gone`. */
  childPids(): readonly number[] | undefined;
  /** True if it sees the files of this host as we do: neither in another mount namespace nor in another root. */
  seesOurFiles(): boolean;
  /**
   * Path of its control group as seen from ours; undefined where there is none or it lies outside our cgroup namespace. Throws CodedError `process-gone`.
   */
  cgroup(): string | undefined;
  /** Whether it lives in our user namespace; in another one it may name any file as its executable. Undefined where the kernel refuses to say. */
  userNamespace(): "ours" | "another" | undefined;
  /** The signature that the kernel enforces on the running code (macOS); undefined where there is none. */
  codeSignature(): CodeSignature | undefined;
  /**
   * Holds the memory image the process runs in now. An execve gives it a new one, and nothing the process does brings the old one back, whereas
   * `execGeneration` is made of numbers that a process may set (prctl PR_SET_MM_MAP). Undefined where the kernel refuses it.
   */
  holdProgram(): HeldProgram | undefined;
  close(): void;
}

export interface ProcessStatus {
  readonly parentPid: number;
  /** Clock ticks since boot; part of a process's identity together with its PID. */
  readonly startTime: bigint;
  /**
   * Changes at every execve (Linux: startstack and arg_start of /proc/PID/stat); undefined while an execve is under way, and where the kernel
   * refuses it.
   */
  readonly execGeneration: string | undefined;
  readonly uid: number;
  readonly gid: number;
  readonly supplementaryGids: readonly number[];
}

export interface CodeSignature {
  /** Of whoever made it; undefined for ad-hoc signatures and for Apple's own programs. */
  readonly teamId: string | undefined;
  readonly identifier: string;
}

/** The program a process ran when this was taken. */
export interface HeldProgram {
  /** False for ever once the process has executed another program or has exited. */
  isCurrent(): boolean;
  close(): void;
}

export interface OpenExecutable {
  readonly fd: number;
  /** False on network and FUSE filesystems, whose times prove nothing about the bytes (D6). */
  readonly localFilesystem: boolean;
  /** True where every change of the bytes shows in size, mtime or ctime: a digest may be kept (D6). */
  readonly timesShowWrites: boolean;
  /** Path as the kernel names it; ends with " (deleted)" on Linux when the file is gone. */
  readonly path: string;
  /**
   * Whether the path leads us to the file that runs. The kernel names it as the process's mount namespace has it, and any user can make a namespace
   * in which /usr/bin/node is a file of his own.
   */
  isAtItsPath(): boolean;
}

/** The socket tables of one network namespace, held: they stay that namespace's whatever becomes of the process through which they were opened. */
export interface NetworkView {
  /** As /proc/net/tcp (4) or tcp6 (6) has it inside, at this moment. */
  table(version: 4 | 6): string;
  close(): void;
}

export interface Confinement {
  /** In its own namespace of each of these kinds: `user`, `mnt`, `pid`, `net`, `ipc`. */
  readonly apart: ReadonlySet<string>;
  /** Its user namespace, as the kernel names it. Nobody comes out of one again. */
  readonly userNamespace: string;
  /** No program that it executes gains rights (set-user-ID, file capabilities). As the next two: true of each of its threads. */
  readonly noNewPrivileges: boolean;
  /** It has no capability, and can get none in its user namespace. */
  readonly powerless: boolean;
  /** Its system calls pass a filter. */
  readonly filtered: boolean;
  /** Whether `path` leads it, through its own links, to the very file or folder that it leads us to. */
  sees(path: string): boolean;
  /** Whether what it finds at `path` lies on a mount that is read-only for it. */
  findsReadOnly(path: string): boolean;
}

export interface TcpEndpoints {
  /** The client's end, as the accepted socket reports its remote side. */
  readonly client: { address: string; port: number };
  /** Our end, as the accepted socket reports its local side. */
  readonly server: { address: string; port: number };
  /** The accepted descriptor. With it the answer is about this very connection, and not about a later one between the same ends. */
  readonly accepted?: number;
}

export type OwnerOfConnection =
  /** `startTime` was read before the descriptor was found: a handle opened later with the same start time is this very process. */
  | { readonly kind: "process"; readonly pid: number; readonly uid: number; readonly startTime: bigint }
  /** The kernel names the user but no process of ours to see holds it (another user's process, another namespace). */
  | { readonly kind: "user-only"; readonly uid: number }
  /** Several processes hold the descriptor: nobody's until proven. */
  | { readonly kind: "shared"; readonly pids: readonly number[]; readonly uid: number }
  | { readonly kind: "unknown"; readonly reason: string };

/** `held`: that process holds it, and `owner` will say whether it does alone; nothing rests on it before that. */
export type HolderOfConnection =
  | OwnerOfConnection
  | {
      readonly kind: "held";
      readonly pid: number;
      readonly startTime: bigint;
      readonly owner: Promise<OwnerOfConnection>;
    };

export interface Ancestor {
  readonly pid: number;
  readonly startTime: bigint;
  readonly uid: number;
  /** Base name of the executable or comm; for recognising init and subreapers and for messages. */
  readonly name: string;
}
