import { readFileSync } from "node:fs";
import { lastErrno, libc, SystemCallError } from "./libc.js";
import { confinementOf, isInOurPidNamespace, networkOf, openNetwork, takeDescriptor } from "./linux-confinement.js";
import { peerOfUnixSocket } from "./linux-peer.js";
import { parseStat, parseStatus } from "./linux-proc-text.js";
import { openLinuxProcess, openPidfd } from "./linux-process.js";
import { ownerOfTcpConnection, userOfTcpConnection } from "./linux-tcp-owner.js";
import type { Ancestor, PeerCredentials, Platform } from "./platform.js";

const PR_SET_DUMPABLE = 4;
const MAX_ANCESTORS = 1024;
const prctl = libc.func("int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)");

export const linux: Platform = {
  name: "linux",
  verified: true,
  peerOfUnixSocket,
  openProcess(peer: PeerCredentials | { pid: number }) {
    const given = "pidfd" in peer ? peer.pidfd : undefined;
    return openLinuxProcess(peer.pid, given ?? openPidfd(peer.pid));
  },
  ownerOfTcpConnection,
  userOfTcpConnection,
  networkOf,
  openNetwork,
  takeDescriptor,
  isInOurPidNamespace,
  confinementOf,
  ancestors,
  forbidInspection() {
    if ((prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) as number) !== 0)
      throw new SystemCallError("prctl(PR_SET_DUMPABLE)", lastErrno());
  },
};

function ancestors(pid: number): readonly Ancestor[] {
  const chain: Ancestor[] = [];
  let parent = read(pid)?.parentPid ?? 0;
  // Bounded, because numbers that are used again while they are read could lead in a circle.
  while (parent > 0 && chain.length < MAX_ANCESTORS) {
    const current = read(parent);
    if (current === undefined) break;
    chain.push(current.ancestor);
    parent = current.parentPid;
  }
  return chain;
}

function read(pid: number): { parentPid: number; ancestor: Ancestor } | undefined {
  try {
    const stat = parseStat(readFileSync(`/proc/${pid}/stat`, "latin1"));
    const { uid } = parseStatus(readFileSync(`/proc/${pid}/status`, "latin1"));
    return { parentPid: stat.parentPid, ancestor: { pid, startTime: stat.startTime, uid, name: stat.comm } };
  } catch {
    return undefined; // it has exited
  }
}
