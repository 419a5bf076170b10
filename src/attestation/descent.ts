import type { HeldProgram, Platform, ProcessHandle, ProcessStatus } from "../platform/platform.js";
import type { LaunchedProcess } from "./launched-process.js";

/** That a process descends from a launched one: a chain of parents in which each link is held by handles. */
export interface Descent {
  readonly from: LaunchedProcess;
  /** Whether each link is, at this moment, the very program that it was: nobody has exited, executed anything or been given another parent. */
  holds(): boolean;
  close(): void;
}

interface Link {
  readonly handle: ProcessHandle;
  readonly status: ProcessStatus;
  readonly program: HeldProgram | undefined;
}

/** What is known of a process that a chain of parents meets. `agent`: it was launched and has no identity (any more). */
export type MetOnTheWay = LaunchedProcess | "agent" | undefined;

const LONGEST_CHAIN = 64;

/**
 * Follows the parents of `descendant` up to the first process that was launched. Undefined where there is none, or it vouches for no descendants,
 * or a link cannot be held, belongs to another user, or changes while the chain is read a second time. The handles of what is returned must be closed.
 */
export function descentOf(
  descendant: ProcessHandle,
  platform: Pick<Platform, "openProcess">,
  met: (pid: number, startTime: bigint) => MetOnTheWay,
): Descent | undefined {
  const links: Link[] = [];
  const close = (): void => {
    for (const { handle, program } of links.splice(0)) {
      program?.close();
      handle.close();
    }
  };
  try {
    const from = climb(descendant, platform, met, links);
    if (from === undefined) {
      close();
      return undefined;
    }
    const descent: Descent = { from, holds: () => chainHolds(descendant, links, from), close };
    // The second reading.
    if (descent.holds()) return descent;
  } catch {
    // A process of the chain has exited: it is broken.
  }
  close();
  return undefined;
}

/** Fills `links` with the processes between `descendant` and the launched one. */
function climb(
  descendant: ProcessHandle,
  platform: Pick<Platform, "openProcess">,
  met: (pid: number, startTime: bigint) => MetOnTheWay,
  links: Link[],
): LaunchedProcess | undefined {
  let child = descendant;
  let status = descendant.status();
  while (links.length < LONGEST_CHAIN && status.parentPid > 1) {
    const handle = platform.openProcess({ pid: status.parentPid });
    const parent = handle.status();
    // The number led to the parent only if the child still has this parent, and the parent was alive, after the handle was there.
    if (child.status().parentPid !== handle.pid || !handle.isAlive() || parent.uid !== status.uid) {
      handle.close();
      return undefined;
    }
    const known = met(handle.pid, parent.startTime);
    if (known !== undefined) {
      handle.close();
      return known === "agent" ? undefined : known;
    }
    const program = handle.holdProgram();
    links.push({ handle, status: parent, program });
    if (program === undefined || parent.execGeneration === undefined) return undefined;
    child = handle;
    status = parent;
  }
  return undefined;
}

function chainHolds(descendant: ProcessHandle, links: readonly Link[], from: LaunchedProcess): boolean {
  try {
    let child = descendant.status();
    for (const { handle, status, program } of links) {
      if (child.parentPid !== handle.pid || !handle.isAlive() || program?.isCurrent() !== true) return false;
      const now = handle.status();
      if (now.startTime !== status.startTime || now.execGeneration !== status.execGeneration) return false;
      if (now.uid !== child.uid) return false;
      child = now;
    }
    return child.parentPid === from.pid && from.vouchesForDescendants() && from.isAlive();
  } catch {
    return false;
  }
}
