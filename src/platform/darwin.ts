import { closeSync, fstatSync, openSync } from "node:fs";
import {
  AUDIT_TOKEN_BYTES,
  BSD_INFO_BYTES,
  type BsdInfo,
  decodeAuditToken,
  decodeBsdInfo,
  decodeExecGeneration,
  decodePidVersion,
  decodeProcessArguments,
  decodeSigningText,
  decodeSocketDescriptors,
  decodeTcpSocket,
  decodeXucred,
  FD_INFO_BYTES,
  isEnforcedSignature,
  KERNEL_NUMBERS,
  normalAddress,
  SOCKET_INFO_BYTES,
  UNIQUE_INFO_BYTES,
  XUCRED_BYTES,
} from "./darwin-decoding.js";
import { errnoName, lastErrno, libc, SystemCallError } from "./libc.js";
import type {
  Ancestor,
  HeldProgram,
  OpenExecutable,
  OwnerOfConnection,
  PeerCredentials,
  Platform,
  ProcessHandle,
  ProcessStatus,
  TcpEndpoints,
} from "./platform.js";
import { ProcessError, processGone } from "./process-errors.js";
import { isFileAt } from "./same-file.js";

/*
 * macOS. Our CI cannot run it: it is kept small, the decoding is tested on every system, and `verified` says false. macOS has no pidfd and no way to
 * hold a process, so a handle compares the start time (in microseconds) at every reading.
 */

const {
  SOL_LOCAL,
  LOCAL_PEERCRED,
  LOCAL_PEERPID,
  LOCAL_PEERTOKEN,
  PROC_PIDTBSDINFO,
  PROC_PIDLISTFDS,
  PROC_PIDFDSOCKETINFO,
  CTL_KERN,
  KERN_PROCARGS2,
  PT_DENY_ATTACH,
  PROC_PIDUNIQIDENTIFIERINFO,
  CS_OPS_STATUS,
  CS_OPS_IDENTITY,
  CS_OPS_TEAMID,
} = KERNEL_NUMBERS;
/** Enough for all arguments and the environment: into less the kernel writes their end, and nothing says so. */
const ARG_MAX = 1024 * 1024;

/** Binds libproc on first use, so that no other system ever looks for it. */
export function darwin(): Platform {
  bound ??= bind();
  return bound;
}

let bound: Platform | undefined;

function bind(): Platform {
  const getsockopt = libc.func("int getsockopt(int, int, int, void *, void *)");
  const pidinfo = libc.func("int proc_pidinfo(int, int, uint64_t, void *, int)");
  const pidfdinfo = libc.func("int proc_pidfdinfo(int, int, int, void *, int)");
  const pidpath = libc.func("int proc_pidpath(int, void *, uint32_t)");
  const listallpids = libc.func("int proc_listallpids(void *, int)");
  const sysctl = libc.func("int sysctl(void *, unsigned int, void *, void *, void *, size_t)");
  const ptrace = libc.func("int ptrace(int, int, void *, int)");
  const csops = libc.func("int csops(int, unsigned int, void *, size_t)");

  const socketOption = (fd: number, name: number, size: number): Buffer | undefined => {
    const value = Buffer.alloc(size);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(size);
    return (getsockopt(fd, SOL_LOCAL, name, value, length) as number) === 0 ? value : undefined;
  };
  const bsdInfo = (pid: number): BsdInfo | undefined => {
    const bytes = Buffer.alloc(BSD_INFO_BYTES);
    return (pidinfo(pid, PROC_PIDTBSDINFO, 0, bytes, bytes.length) as number) === bytes.length
      ? decodeBsdInfo(bytes)
      : undefined;
  };
  const uniqueInfo = (pid: number): Buffer | undefined => {
    const bytes = Buffer.alloc(UNIQUE_INFO_BYTES);
    return (pidinfo(pid, PROC_PIDUNIQIDENTIFIERINFO, 0, bytes, bytes.length) as number) === bytes.length
      ? bytes
      : undefined;
  };
  const execGeneration = (pid: number): string | undefined => {
    const bytes = uniqueInfo(pid);
    return bytes === undefined ? undefined : decodeExecGeneration(bytes);
  };
  const signingOf = (pid: number, operation: number, size: number): Buffer | undefined => {
    const bytes = Buffer.alloc(size);
    return (csops(pid, operation, bytes, size) as number) === 0 ? bytes : undefined;
  };
  const pathOf = (pid: number): string | undefined => {
    const bytes = Buffer.alloc(4096);
    const length = pidpath(pid, bytes, bytes.length) as number;
    return length > 0 ? bytes.toString("utf8", 0, length) : undefined;
  };
  const openedImage = (pid: number): OpenExecutable | undefined => {
    const path = pathOf(pid);
    if (path === undefined) return undefined;
    try {
      // By path: macOS has no way to open the running image itself.
      // Whether a running executable can be written unseen was never tried there: nothing is kept.
      const fd = openSync(path, "r");
      return { fd, path, localFilesystem: true, timesShowWrites: false, isAtItsPath: () => isFileAt(fd, path) };
    } catch {
      return undefined; // not readable for us: the fact is absent
    }
  };
  const commandLineOf = (pid: number): readonly string[] => {
    const name = Buffer.alloc(12);
    [CTL_KERN, KERN_PROCARGS2, pid].forEach((part, index) => {
      name.writeInt32LE(part, 4 * index);
    });
    const value = Buffer.alloc(ARG_MAX);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(value.length));
    if ((sysctl(name, 3, value, length, null, 0) as number) !== 0) return [];
    const written = Number(length.readBigUInt64LE(0));
    return written < value.length ? decodeProcessArguments(value.subarray(0, written)) : [];
  };

  const peerOfUnixSocket = (fd: number): PeerCredentials => {
    const token = socketOption(fd, LOCAL_PEERTOKEN, AUDIT_TOKEN_BYTES);
    if (token !== undefined) {
      const { pid, uid, gid, pidVersion } = decodeAuditToken(token);
      return { pid, uid, gid, pidVersion, pidfdFromSocket: false };
    }
    const credentials = socketOption(fd, LOCAL_PEERCRED, XUCRED_BYTES);
    const pid = socketOption(fd, LOCAL_PEERPID, 4)?.readInt32LE(0) ?? 0;
    if (credentials === undefined || pid <= 0) {
      throw new ProcessError("peer-unknown", `the kernel does not say who is connected: ${errnoName(lastErrno())}`);
    }
    const { uid, gid } = decodeXucred(credentials);
    return { pid, uid, gid, pidfdFromSocket: false };
  };

  const openProcess = (peer: PeerCredentials | { pid: number }): ProcessHandle => {
    const pid = peer.pid;
    const opened = bsdInfo(pid);
    if (opened === undefined || opened.zombie) throw processGone(pid);
    const connected = "pidVersion" in peer ? peer.pidVersion : undefined;
    const unique = uniqueInfo(pid);
    if (connected !== undefined && unique !== undefined && decodePidVersion(unique) !== connected) {
      throw new ProcessError("process-gone", `process ${pid} has executed another program since it connected`);
    }
    const same = (): BsdInfo | undefined => {
      const now = bsdInfo(pid);
      return now !== undefined && !now.zombie && now.startTime === opened.startTime ? now : undefined;
    };
    const status = (): ProcessStatus => {
      const generation = execGeneration(pid);
      const now = same();
      if (now === undefined) throw processGone(pid);
      return {
        parentPid: now.parentPid,
        startTime: now.startTime,
        execGeneration: generation,
        uid: now.uid,
        gid: now.gid,
        supplementaryGids: [],
      };
    };
    return {
      pid,
      isAlive: () => same() !== undefined,
      status,
      openExecutable: () => openedImage(pid),
      isExecuting(fd) {
        const now = openedImage(pid);
        if (now === undefined) return undefined;
        try {
          const [was, is] = [fstatSync(fd, { bigint: true }), fstatSync(now.fd, { bigint: true })];
          return was.dev === is.dev && was.ino === is.ino;
        } finally {
          closeSync(now.fd);
        }
      },
      commandLine: () => commandLineOf(pid),
      // proc_pidvnodepathinfo is not decoded: nothing is granted on a working directory.
      workingDirectory: () => undefined,
      cgroup: () => undefined,
      userNamespace: () => "ours",
      codeSignature() {
        const status = signingOf(pid, CS_OPS_STATUS, 4);
        if (status === undefined || !isEnforcedSignature(status)) return undefined;
        const identifier = signingOf(pid, CS_OPS_IDENTITY, 1024);
        const team = signingOf(pid, CS_OPS_TEAMID, 1024);
        const name = identifier === undefined ? undefined : decodeSigningText(identifier);
        if (name === undefined) return undefined;
        return { identifier: name, teamId: team === undefined ? undefined : decodeSigningText(team) };
      },
      childPids: () => undefined,
      // There are no mount namespaces, and another root needs root.
      seesOurFiles: () => true,
      holdProgram(): HeldProgram | undefined {
        const held = execGeneration(pid);
        if (held === undefined) return undefined;
        return { isCurrent: () => same() !== undefined && execGeneration(pid) === held, close() {} };
      },
      close() {},
    };
  };

  const allPids = (): number[] => {
    const bytes = Buffer.alloc(4 * 16384);
    const count = listallpids(bytes, bytes.length) as number;
    return Array.from({ length: Math.max(0, count) }, (_, index) => bytes.readInt32LE(4 * index));
  };
  const holds = (pid: number, wanted: TcpEndpoints): boolean => {
    const list = Buffer.alloc(FD_INFO_BYTES * 4096);
    const length = pidinfo(pid, PROC_PIDLISTFDS, 0, list, list.length) as number;
    for (const fd of decodeSocketDescriptors(list.subarray(0, Math.max(0, length)))) {
      const bytes = Buffer.alloc(SOCKET_INFO_BYTES);
      if ((pidfdinfo(pid, fd, PROC_PIDFDSOCKETINFO, bytes, bytes.length) as number) < SOCKET_INFO_BYTES) continue;
      const found = decodeTcpSocket(bytes);
      if (found !== undefined && sameEnd(found.client, wanted.client) && sameEnd(found.server, wanted.server)) {
        return true;
      }
    }
    return false;
  };

  return {
    name: "darwin",
    verified: false,
    peerOfUnixSocket,
    openProcess,
    // Only a search through all processes would say.
    userOfTcpConnection: () => undefined,
    networkOf: () => undefined,
    openNetwork: notHere,
    takeDescriptor: notHere,
    confinementOf: notHere,
    async ownerOfTcpConnection(endpoints, candidates): Promise<OwnerOfConnection> {
      const holders: { pid: number; info: BsdInfo }[] = [];
      for (const pid of new Set([...candidates, ...allPids()])) {
        const info = bsdInfo(pid);
        if (info !== undefined && holds(pid, endpoints)) holders.push({ pid, info });
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
      const [first, second] = holders;
      if (first === undefined) return { kind: "unknown", reason: "no process that we may see holds the connection" };
      if (second !== undefined) {
        return { kind: "shared", pids: holders.map((holder) => holder.pid), uid: first.info.uid };
      }
      // A port that changed hands during the search is nobody's.
      if (!holds(first.pid, endpoints)) {
        return { kind: "unknown", reason: "the connection was closed while its owner was looked for" };
      }
      return { kind: "process", pid: first.pid, uid: first.info.uid, startTime: first.info.startTime };
    },
    ancestors(pid): readonly Ancestor[] {
      const chain: Ancestor[] = [];
      let parent = bsdInfo(pid)?.parentPid ?? 0;
      while (parent > 0) {
        const info = bsdInfo(parent);
        if (info === undefined) break;
        chain.push({ pid: parent, startTime: info.startTime, uid: info.uid, name: info.name });
        parent = info.parentPid;
      }
      return chain;
    },
    isInOurPidNamespace: () => true,
    forbidInspection() {
      if ((ptrace(PT_DENY_ATTACH, 0, null, 0) as number) !== 0) {
        throw new SystemCallError("ptrace(PT_DENY_ATTACH)", lastErrno());
      }
    },
  };
}

function sameEnd(a: { address: string; port: number }, b: { address: string; port: number }): boolean {
  return a.port === b.port && normalAddress(a.address) === normalAddress(b.address);
}

/** There are no network namespaces on macOS: a sandbox there is a profile on the process itself. */
function notHere(): never {
  throw new ProcessError("unsupported", "macOS has no namespaces");
}
