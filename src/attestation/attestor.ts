import { closeSync, fstatSync, statSync } from "node:fs";
import { CodedError, messageOf } from "../coded-error.js";
import type {
  HeldProgram,
  OpenExecutable,
  PeerCredentials,
  Platform,
  ProcessHandle,
  ProcessStatus,
} from "../platform/platform.js";
import { type AccountNames, accountNames } from "./account-names.js";
import type { Caller, CallerAttestor, CallerLaunch, Nobody } from "./caller.js";
import type { Descent } from "./descent.js";
import type { ExecutableDigests } from "./hash-cache.js";
import { executableDigests } from "./hash-cache.js";
import type { LaunchRegistry } from "./launches.js";
import type { ProcessFacts } from "./process-facts.js";

/** A process is not what it was when it was attested. Code `process-changed` or `process-gone`. */
export class AttestationError extends CodedError<"process-changed" | "process-gone"> {
  override readonly name = "AttestationError";
}

export interface AttestorOptions {
  readonly platform: Platform;
  readonly launches: LaunchRegistry;
  /** Share one between attestor and launch registry, so that an executable is hashed once. */
  readonly digests?: ExecutableDigests;
  readonly names?: AccountNames;
}

/** Turns connections and process numbers into callers. */
export function createCallerAttestor(options: AttestorOptions): CallerAttestor {
  const { platform, launches } = options;
  const attest = attestationBy(launches, options.digests ?? executableDigests(), options.names ?? accountNames());

  return {
    async ofUnixSocket(fd) {
      // Both before the first await: the kernel's word is taken and the handles are open before the peer can do anything further.
      const peer = platform.peerOfUnixSocket(fd);
      return attest(platform.openProcess(peer), peer);
    },

    async ofTcpConnection(endpoints) {
      const nobody = (reason: string, uid?: number, pid?: number): Nobody => ({ nobody: true, uid, pid, reason });
      try {
        const owner = await platform.ownerOfTcpConnection(endpoints, launches.pids());
        if (owner.kind === "unknown") return nobody(owner.reason);
        if (owner.kind === "user-only") {
          return nobody(`the connection belongs to user ${owner.uid}, whose processes are not visible`, owner.uid);
        }
        if (owner.kind === "shared") {
          return nobody(
            `several processes hold the connection (${owner.pids.join(", ")}), so it proves nothing about any of them`,
            owner.uid,
            owner.pids[0],
          );
        }
        const handle = platform.openProcess({ pid: owner.pid });
        if (handle.status().startTime !== owner.startTime) {
          handle.close();
          return nobody("the process that held the connection has exited", owner.uid, owner.pid);
        }
        return await attest(handle, undefined);
      } catch (thrown) {
        return nobody(messageOf(thrown));
      }
    },

    async ofPid(pid) {
      return attest(platform.openProcess({ pid }), undefined);
    },
  };
}

/** One request asks several times, and a climb up to the first process costs more than all else about it. Only a refusal may be this old. */
const NO_DESCENT_MS = 20;

type Attestation = (handle: ProcessHandle, peer: PeerCredentials | undefined) => Promise<Caller>;

function attestationBy(launches: LaunchRegistry, digests: ExecutableDigests, names: AccountNames): Attestation {
  return async (handle, peer) => {
    let program: HeldProgram | undefined;
    try {
      program = handle.holdProgram();
      const before = handle.status();
      requireSameUser(handle.pid, before, peer);
      const executable = await executableOf(handle, digests);
      await launches.checkNow(handle.pid);
      const facts = factsOf(handle, before, peer, executable, names);
      const caller = new HeldCaller(handle, program, before, facts, launches);
      // All of the above was read of one program of one process only if it is still that now.
      caller.recheck();
      return caller;
    } catch (thrown) {
      program?.close();
      handle.close();
      throw thrown;
    }
  };
}

class HeldCaller implements Caller {
  readonly facts: ProcessFacts;
  readonly #handle: ProcessHandle;
  readonly #program: HeldProgram | undefined;
  readonly #attested: ProcessStatus;
  readonly #launches: LaunchRegistry;
  #descent: Descent | undefined;
  /** ms: a look at its parents has found no launch a moment ago. */
  #noDescentUntil = 0;
  #closed = false;

  constructor(
    handle: ProcessHandle,
    program: HeldProgram | undefined,
    attested: ProcessStatus,
    facts: ProcessFacts,
    launches: LaunchRegistry,
  ) {
    this.#handle = handle;
    this.#program = program;
    this.#attested = attested;
    this.facts = facts;
    this.#launches = launches;
  }

  get launch(): CallerLaunch | undefined {
    const { pid, startTime, execGeneration } = this.facts;
    const own = this.#launches.launchOf(pid, startTime, execGeneration);
    if (own !== undefined) return { ...own, evidence: "launch", pid };
    // What was launched itself has what its own launch gives, or nothing any more.
    if (this.#launches.isAgent(pid, startTime)) return undefined;
    return this.#descendedLaunch();
  }

  #descendedLaunch(): CallerLaunch | undefined {
    if (this.#descent?.holds() === false) {
      this.#descent.close();
      this.#descent = undefined;
    }
    if (this.#closed || (this.#descent === undefined && performance.now() < this.#noDescentUntil)) return undefined;
    this.#descent ??= this.#launches.descentOf(this.#handle);
    if (this.#descent === undefined) this.#noDescentUntil = performance.now() + NO_DESCENT_MS;
    return this.#descent && { ...this.#descent.from.granted, evidence: "parent", pid: this.#descent.from.pid };
  }

  recheck(): void {
    if (!this.#handle.isAlive()) {
      throw new AttestationError("process-gone", `process ${this.facts.pid} has exited`);
    }
    requireUnchanged(this.facts.pid, this.#attested, this.#handle.status(), this.#program);
  }

  close(): void {
    this.#closed = true;
    this.#descent?.close();
    this.#descent = undefined;
    this.#program?.close();
    this.#handle.close();
  }
}

interface HashedExecutable {
  readonly path: string | undefined;
  readonly sha256: string | undefined;
  readonly localFilesystem: boolean;
  /** Why path or digest are absent. */
  readonly missing: { readonly exePath?: string; readonly exeSha256?: string };
}

/** Path and digest of the executable, checked after hashing to be still the one that runs. */
async function executableOf(handle: ProcessHandle, digests: ExecutableDigests): Promise<HashedExecutable> {
  const absent = (reason: string): HashedExecutable => ({
    path: undefined,
    sha256: undefined,
    localFilesystem: true,
    missing: { exePath: reason, exeSha256: reason },
  });
  const opened = handle.openExecutable();
  if (opened === undefined) return absent("the kernel does not let us see this process's executable");
  try {
    const sha256 = await digests.digestOf(opened);
    if (sha256 === undefined) return absent("the executable changed while it was hashed");
    requireSameExecutable(handle, opened);
    const { localFilesystem } = opened;
    if (!namesSameFile(opened)) {
      const exePath = `${opened.path} is another file or none as seen from here (replaced, or another mount namespace)`;
      return { path: undefined, sha256, localFilesystem, missing: { exePath } };
    }
    return { path: opened.path, sha256, localFilesystem, missing: {} };
  } finally {
    closeSync(opened.fd);
  }
}

/**
 * Whether the path leads us to the file that runs. The kernel names it as the process's mount namespace has it, and any user can make a namespace
 * in which /usr/bin/node is a file of his own.
 */
function namesSameFile({ fd, path }: OpenExecutable): boolean {
  try {
    const running = fstatSync(fd, { bigint: true });
    const named = statSync(path, { bigint: true });
    return running.dev === named.dev && running.ino === named.ino;
  } catch {
    return false; // deleted, or not for us to see
  }
}

function requireSameExecutable(handle: ProcessHandle, hashed: OpenExecutable): void {
  const now = handle.openExecutable();
  if (now === undefined) throw changed(handle.pid, "its executable can no longer be seen");
  try {
    const was = fstatSync(hashed.fd, { bigint: true });
    const is = fstatSync(now.fd, { bigint: true });
    if (was.dev !== is.dev || was.ino !== is.ino) throw changed(handle.pid, "it executes another file");
  } finally {
    closeSync(now.fd);
  }
}

/** The user at connect time, by the kernel's word, must be the user now: a process that changed in between is neither. */
function requireSameUser(pid: number, status: ProcessStatus, peer: PeerCredentials | undefined): void {
  if (peer === undefined) return;
  if (peer.uid !== status.uid || peer.gid !== status.gid) {
    throw changed(pid, `it connected as user ${peer.uid}, group ${peer.gid} and is now ${status.uid}, ${status.gid}`);
  }
}

function requireUnchanged(pid: number, was: ProcessStatus, is: ProcessStatus, program: HeldProgram | undefined): void {
  if (was.startTime !== is.startTime) {
    throw new AttestationError("process-gone", `process ${pid} has exited and its number is used again`);
  }
  if (was.execGeneration !== is.execGeneration || (program !== undefined && !program.isCurrent())) {
    throw changed(pid, "it has executed another program");
  }
  const sameGroups =
    was.supplementaryGids.length === is.supplementaryGids.length &&
    was.supplementaryGids.every((gid, index) => gid === is.supplementaryGids[index]);
  if (was.uid !== is.uid || was.gid !== is.gid || !sameGroups) throw changed(pid, "its user or groups have changed");
}

function changed(pid: number, how: string): AttestationError {
  return new AttestationError("process-changed", `process ${pid} has changed since it connected: ${how}`, {
    hint: "Connect again: a new connection is attested anew.",
  });
}

function factsOf(
  handle: ProcessHandle,
  status: ProcessStatus,
  peer: PeerCredentials | undefined,
  executable: HashedExecutable,
  names: AccountNames,
): ProcessFacts {
  const missing: Record<string, string> = {};
  const user = names.user(status.uid);
  const group = names.group(status.gid);
  if (user === undefined) missing.user = `no account has the number ${status.uid}`;
  if (group === undefined) missing.group = `no group has the number ${status.gid}`;
  Object.assign(missing, executable.missing);
  if (status.execGeneration === undefined)
    missing.execGeneration = "the kernel does not let us see when it executes another program";
  const weak = (peer !== undefined && !peer.pidfdFromSocket) || !executable.localFilesystem;
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
    evidence: weak ? "weak" : "kernel",
    missing,
    commandLine: handle.commandLine(),
  };
}
