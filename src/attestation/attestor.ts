import { messageOf } from "../coded-error.js";
import { cgroupNames } from "../platform/linux-cgroup.js";
import type {
  HeldProgram,
  OwnerOfConnection,
  PeerCredentials,
  Platform,
  ProcessHandle,
  ProcessStatus,
} from "../platform/platform.js";
import { type AccountNames, accountNames } from "./account-names.js";
import { AttestationError, processChanged } from "./attestation-error.js";
import type { Caller, CallerAttestor, CallerLaunch, Nobody } from "./caller.js";
import type { Descent } from "./descent.js";
import { type AttestedExecutable, executableOf } from "./executable.js";
import type { ExecutableDigests } from "./hash-cache.js";
import { executableDigests } from "./hash-cache.js";
import type { LaunchRegistry } from "./launches.js";
import { attestParent, type HeldParent, noParent } from "./parent.js";
import { CGROUP_FACTS, type ProcessFacts, withoutCgroup, withoutParent } from "./process-facts.js";

export { AttestationError } from "./attestation-error.js";

export interface AttestorOptions {
  readonly platform: Platform;
  readonly launches: LaunchRegistry;
  /** Share one between attestor and launch registry, so that an executable is hashed once. */
  readonly digests?: ExecutableDigests;
  readonly names?: AccountNames;
  /** Whether anybody asks for a caller's parent: a second process to hold and to hash. Default: nobody does. */
  readonly parentsMatter?: () => boolean;
  /** Whether anybody asks for a caller's cgroup, or what it names: where nobody does it is not read until somebody does. Default: somebody does. */
  readonly cgroupsMatter?: () => boolean;
  /** Whether process `pid` is inside the sandbox of a launch now. */
  readonly isSandboxed?: (pid: number) => boolean;
}

/** Turns connections and process numbers into callers. */
export function createCallerAttestor(options: AttestorOptions): CallerAttestor {
  const { platform, launches } = options;
  const attest = attestationBy({
    platform,
    launches,
    digests: options.digests ?? executableDigests(),
    names: options.names ?? accountNames(),
    isSandboxed: options.isSandboxed ?? (() => false),
    cgroupsMatter: options.cgroupsMatter ?? (() => true),
  });
  const parentsMatter = options.parentsMatter ?? (() => false);

  async function attestOwner(owner: OwnerOfConnection): Promise<Caller | Nobody> {
    return owner.kind === "process" ? attestHolder(owner) : whyNobody(owner);
  }

  async function attestHolder({ pid, startTime }: Holder): Promise<Caller | Nobody> {
    const handle = platform.openProcess({ pid });
    if (handle.status().startTime === startTime) return attest(handle, undefined, parentsMatter());
    handle.close();
    return nobody("the process that held the connection has exited", undefined, pid);
  }

  return {
    async ofUnixSocket(fd) {
      // Both before the first await: the kernel's word is taken and the handles are open before the peer can do anything further.
      const peer = platform.peerOfUnixSocket(fd);
      return attest(platform.openProcess(peer), peer, parentsMatter());
    },

    async ofTcpConnection(endpoints, network) {
      try {
        const holder = await platform.ownerOfTcpConnection(endpoints, launches.pids(), network);
        if (holder.kind !== "held") return await attestOwner(holder);
        // A launched process is attested while all others are searched for the same connection.
        const [caller, owner] = await Promise.all([
          attestHolder(holder).catch(asNobody),
          holder.owner.catch(asUnknown),
        ]);
        if (isOwnedBy(owner, holder)) return caller;
        if (!("nobody" in caller)) caller.close();
        return await attestOwner(owner);
      } catch (thrown) {
        return asNobody(thrown);
      }
    },

    userOfTcpConnection: (endpoints) => platform.userOfTcpConnection(endpoints),

    async ofPid(pid) {
      return attest(platform.openProcess({ pid }), undefined, true, true);
    },
  };
}

type Holder = Pick<Extract<OwnerOfConnection, { kind: "process" }>, "pid" | "startTime">;

function isOwnedBy(owner: OwnerOfConnection, { pid, startTime }: Holder): boolean {
  return owner.kind === "process" && owner.pid === pid && owner.startTime === startTime;
}

function nobody(reason: string, uid?: number, pid?: number): Nobody {
  return { nobody: true, uid, pid, reason };
}

function asNobody(thrown: unknown): Nobody {
  return nobody(messageOf(thrown));
}

function asUnknown(thrown: unknown): OwnerOfConnection {
  return { kind: "unknown", reason: messageOf(thrown) };
}

function whyNobody(owner: Exclude<OwnerOfConnection, { kind: "process" }>): Nobody {
  switch (owner.kind) {
    case "unknown":
      return nobody(owner.reason);
    case "user-only":
      return nobody(`the connection belongs to user ${owner.uid}, whose processes are not visible`, owner.uid);
    case "shared":
      return nobody(
        `several processes hold the connection (${owner.pids.join(", ")}), so it proves nothing about any of them`,
        owner.uid,
        owner.pids[0],
      );
  }
}

/** One request asks several times, and a climb up to the first process costs more than all else about it. Only a refusal may be this old. */
const NO_DESCENT_MS = 20;

type Attestation = (
  handle: ProcessHandle,
  peer: PeerCredentials | undefined,
  withParent: boolean,
  withCgroup?: boolean,
) => Promise<Caller>;

type AttestationParts = Required<
  Pick<AttestorOptions, "platform" | "launches" | "digests" | "names" | "isSandboxed" | "cgroupsMatter">
>;

function attestationBy(parts: AttestationParts): Attestation {
  const { platform, launches, digests, names, isSandboxed, cgroupsMatter } = parts;
  return async (handle, peer, withParent, withCgroup = cgroupsMatter()) => {
    let program: HeldProgram | undefined;
    let parent: HeldParent | string = "not looked at: no identity asks for it";
    try {
      program = handle.holdProgram();
      const before = handle.status();
      requireSameUser(handle.pid, before, peer);
      const cgroup = withCgroup ? { path: handle.cgroup() } : undefined;
      const executable = await executableOf(handle, digests);
      if (withParent) parent = await attestParent(platform, digests, handle).catch(noParent);
      await launches.checkNow(handle.pid);
      const facts = factsOf(handle, names, { status: before, peer, cgroup, executable, parent, platform });
      const held = typeof parent === "string" ? undefined : parent;
      const sandboxed = isSandboxed(handle.pid);
      const attested = { status: before, facts, knowsCgroup: withCgroup };
      const caller = new HeldCaller({ handle, program, parent: held, attested, launches, sandboxed, cgroupsMatter });
      // All of the above was read of one program of one process only if it is still that now.
      caller.recheck();
      return caller;
    } catch (thrown) {
      if (typeof parent !== "string") parent.close();
      program?.close();
      handle.close();
      throw thrown;
    }
  };
}

interface HeldParts {
  readonly handle: ProcessHandle;
  readonly program: HeldProgram | undefined;
  readonly parent: HeldParent | undefined;
  readonly attested: { readonly status: ProcessStatus; readonly facts: ProcessFacts; readonly knowsCgroup: boolean };
  readonly launches: LaunchRegistry;
  readonly sandboxed: boolean;
  readonly cgroupsMatter: () => boolean;
}

class HeldCaller implements Caller {
  readonly sandboxed: boolean;
  readonly #parts: HeldParts;
  #facts: ProcessFacts;
  #knowsCgroup: boolean;
  #descent: Descent | undefined;
  /** ms: a look at its parents has found no launch a moment ago. */
  #noDescentUntil = 0;
  #closed = false;

  constructor(parts: HeldParts) {
    this.sandboxed = parts.sandboxed;
    this.#parts = parts;
    this.#facts = parts.attested.facts;
    this.#knowsCgroup = parts.attested.knowsCgroup;
  }

  get facts(): ProcessFacts {
    return this.#facts;
  }

  get launch(): CallerLaunch | undefined {
    const { launches } = this.#parts;
    const { pid, startTime, execGeneration } = this.#facts;
    const own = launches.launchOf(pid, startTime, execGeneration);
    if (own !== undefined) return { ...own, evidence: "launch", pid };
    // What was launched itself has what its own launch gives, or nothing any more.
    if (launches.isAgent(pid, startTime)) return undefined;
    return this.#descendedLaunch();
  }

  #descendedLaunch(): CallerLaunch | undefined {
    if (this.#descent?.holds() === false) {
      this.#descent.close();
      this.#descent = undefined;
    }
    if (this.#closed || (this.#descent === undefined && performance.now() < this.#noDescentUntil)) return undefined;
    this.#descent ??= this.#parts.launches.descentOf(this.#parts.handle);
    if (this.#descent === undefined) this.#noDescentUntil = performance.now() + NO_DESCENT_MS;
    return this.#descent && { ...this.#descent.from.granted, evidence: "parent", pid: this.#descent.from.pid };
  }

  recheck(): void {
    const { handle, program, parent, attested, cgroupsMatter } = this.#parts;
    // Throws where the process has exited, before the reading or during it.
    const now = handle.status();
    requireUnchanged(handle.pid, attested.status, now, program);
    // What others may change about a process that goes on as it was: the fact ends, the caller does not.
    if (this.#facts.cgroup !== undefined && handle.cgroup() !== this.#facts.cgroup) {
      this.#facts = withoutCgroup(this.#facts);
    }
    if (!this.#knowsCgroup && cgroupsMatter()) {
      this.#knowsCgroup = true;
      const missing = { ...this.#facts.missing };
      this.#facts = { ...this.#facts, ...cgroupFacts({ path: handle.cgroup() }, missing), missing };
    }
    if (hasParent(this.#facts) && parent?.isStillParent(now.parentPid) !== true)
      this.#facts = withoutParent(this.#facts);
  }

  close(): void {
    this.#closed = true;
    this.#descent?.close();
    this.#descent = undefined;
    const { handle, program, parent } = this.#parts;
    parent?.close();
    program?.close();
    handle.close();
  }
}

function hasParent({ parentExePath, parentExeSha256 }: ProcessFacts): boolean {
  return parentExePath !== undefined || parentExeSha256 !== undefined;
}

/** The user at connect time, by the kernel's word, must be the user now: a process that changed in between is neither. */
function requireSameUser(pid: number, status: ProcessStatus, peer: PeerCredentials | undefined): void {
  if (peer === undefined) return;
  if (peer.uid !== status.uid || peer.gid !== status.gid) {
    throw processChanged(
      pid,
      `it connected as user ${peer.uid}, group ${peer.gid} and is now ${status.uid}, ${status.gid}`,
    );
  }
}

function requireUnchanged(pid: number, was: ProcessStatus, is: ProcessStatus, program: HeldProgram | undefined): void {
  if (was.startTime !== is.startTime) {
    throw new AttestationError("process-gone", `process ${pid} has exited and its number is used again`);
  }
  if (was.execGeneration !== is.execGeneration || (program !== undefined && !program.isCurrent())) {
    throw processChanged(pid, "it has executed another program");
  }
  const sameGroups =
    was.supplementaryGids.length === is.supplementaryGids.length &&
    was.supplementaryGids.every((gid, index) => gid === is.supplementaryGids[index]);
  if (was.uid !== is.uid || was.gid !== is.gid || !sameGroups)
    throw processChanged(pid, "its user or groups have changed");
}

interface ReadCgroup {
  /** Undefined where there is none. */
  readonly path: string | undefined;
}

interface Readings {
  readonly platform: Platform;
  readonly status: ProcessStatus;
  readonly peer: PeerCredentials | undefined;
  /** Undefined where it was not looked at. */
  readonly cgroup: ReadCgroup | undefined;
  readonly executable: AttestedExecutable;
  /** Or why there is none. */
  readonly parent: HeldParent | string;
}

function factsOf(handle: ProcessHandle, names: AccountNames, readings: Readings): ProcessFacts {
  const { status, cgroup, executable, parent, platform } = readings;
  const missing: Record<string, string> = {};
  const user = names.user(status.uid);
  const group = names.group(status.gid);
  if (user === undefined) missing.user = `no account has the number ${status.uid}`;
  if (group === undefined) missing.group = `no group has the number ${status.gid}`;
  Object.assign(missing, executable.missing);
  if (status.execGeneration === undefined)
    missing.execGeneration = "the kernel does not let us see when it executes another program";
  const weakness = weaknessOf(readings);
  return {
    pid: handle.pid,
    startTime: status.startTime,
    execGeneration: status.execGeneration,
    uid: status.uid,
    user,
    gid: status.gid,
    group,
    supplementaryGids: status.supplementaryGids,
    supplementaryGroups: status.supplementaryGids.flatMap((gid) => names.group(gid) ?? []),
    exePath: executable.path,
    exeSha256: executable.sha256,
    ...cgroupFacts(cgroup, missing),
    ...parentFacts(parent, missing),
    ...signatureFacts(handle, platform, missing),
    evidence: weakness === undefined ? "kernel" : "weak",
    weakness,
    missing,
    commandLine: handle.commandLine(),
  };
}

/** Why the evidence is weak, for people; undefined where it is not. */
function weaknessOf({ peer, executable, platform }: Readings): string | undefined {
  if (!platform.verified) return "this system has no handles that hold a process, and agentid was not verified on it";
  if (peer !== undefined && !peer.pidfdFromSocket)
    return "this kernel (before 6.5) names the peer by number only: the number could have been used again";
  if (!executable.localFilesystem)
    return "the executable lies on a network or FUSE filesystem, whose server may answer each reading differently";
  return undefined;
}

/** The facts, and in `missing` why the others are absent. */
function cgroupFacts(cgroup: ReadCgroup | undefined, missing: Record<string, string>): Partial<ProcessFacts> {
  const path = cgroup?.path;
  const facts = { cgroup: path, ...(path === undefined ? {} : cgroupNames(path)) };
  const none = path === undefined ? "it is in no cgroup below ours" : `its cgroup ${path} names none`;
  for (const fact of CGROUP_FACTS) {
    if (facts[fact] === undefined)
      missing[fact] = cgroup === undefined ? "not looked at: no identity asks for it" : none;
    else delete missing[fact];
  }
  return facts;
}

function parentFacts(parent: HeldParent | string, missing: Record<string, string>): Partial<ProcessFacts> {
  const absent = typeof parent === "string" ? { exePath: parent, exeSha256: parent } : parent.missing;
  if (absent.exePath !== undefined) missing.parentExePath = absent.exePath;
  if (absent.exeSha256 !== undefined) missing.parentExeSha256 = absent.exeSha256;
  return typeof parent === "string" ? {} : { parentExePath: parent.exePath, parentExeSha256: parent.exeSha256 };
}

function signatureFacts(
  handle: ProcessHandle,
  platform: Platform,
  missing: Record<string, string>,
): Partial<ProcessFacts> {
  const signature = handle.codeSignature();
  const why = platform.name === "darwin" ? "the kernel enforces no valid signature of it" : "only macOS has it";
  if (signature?.teamId === undefined) missing.signingTeam = why;
  if (signature === undefined) missing.signingIdentifier = why;
  return { signingTeam: signature?.teamId, signingIdentifier: signature?.identifier };
}
