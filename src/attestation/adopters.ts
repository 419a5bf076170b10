import type { Platform } from "../platform/platform.js";
import type { KnownAgent } from "./launches.js";

/**
 * Processes that adopt what an agent orphans. Who is a subreaper the kernel tells nobody, so each launcher tries it with an orphan of its own, before it
 * becomes the agent. Where it could not, everything above it may be one.
 */
export interface Adopters {
  /** Of what process `launcherPid` will be: process `found` adopts its orphans. */
  learn(launcherPid: number, found: number | undefined): void;
  isAdopter(pid: number, startTime: bigint): boolean;
  /** To be kept across restarts of the daemon within one boot. */
  all(): readonly KnownAgent[];
}

export function createAdopters(platform: Pick<Platform, "ancestors">, known: readonly KnownAgent[]): Adopters {
  const adopters = new Map(known.map((adopter) => [keyOf(adopter), adopter]));
  return {
    learn(launcherPid, found) {
      const above = platform.ancestors(launcherPid);
      const adopter = above.filter(({ pid }) => pid === found);
      for (const { pid, startTime } of adopter.length > 0 ? adopter : above)
        adopters.set(keyOf({ pid, startTime }), { pid, startTime });
    },
    isAdopter: (pid, startTime) => adopters.has(keyOf({ pid, startTime })),
    all: () => [...adopters.values()],
  };
}

function keyOf({ pid, startTime }: KnownAgent): string {
  return `${pid}:${startTime}`;
}
