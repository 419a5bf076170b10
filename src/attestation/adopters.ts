import type { Platform } from "../platform/platform.js";
import type { KnownAgent } from "./launches.js";

/**
 * Processes that adopt what an agent orphans. Who is a subreaper the kernel tells nobody, so each launcher tries it with an orphan of its own, before it
 * becomes the agent. That finds the nearest one. An agent can end that one, and then the next above adopts, so everything above the nearest counts too;
 * where it could not be tried, everything above the launcher.
 */
export interface Adopters {
  /** Of what process `launcherPid` will be: process `found`, as the launcher numbers processes, is the first to adopt its orphans. */
  learn(launcherPid: number, found: number | undefined): void;
  isAdopter(pid: number, startTime: bigint): boolean;
  /** To be kept across restarts of the daemon within one boot. */
  all(): readonly KnownAgent[];
}

export function createAdopters(
  platform: Pick<Platform, "ancestors" | "isInOurPidNamespace">,
  known: readonly KnownAgent[],
): Adopters {
  const adopters = new Map(known.map((adopter) => [keyOf(adopter), adopter]));
  return {
    learn(launcherPid, found) {
      const above = platform.ancestors(launcherPid);
      // In a PID namespace of its own the launcher's numbers are not ours: its 1 is whoever adopts inside, and not our init.
      const nearest = platform.isInOurPidNamespace(launcherPid) ? above.findIndex(({ pid }) => pid === found) : -1;
      for (const { pid, startTime } of above.slice(Math.max(nearest, 0)))
        adopters.set(keyOf({ pid, startTime }), { pid, startTime });
    },
    isAdopter: (pid, startTime) => adopters.has(keyOf({ pid, startTime })),
    all: () => [...adopters.values()],
  };
}

function keyOf({ pid, startTime }: KnownAgent): string {
  return `${pid}:${startTime}`;
}
