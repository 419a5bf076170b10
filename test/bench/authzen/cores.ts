import { execFileSync } from "node:child_process";
import { availableParallelism } from "node:os";

const CORES = { generator: 0, server: 1 } as const;
const canPin = availableParallelism() > 1 && hasTaskset();

/** `command` on the one core that its role has: all servers share one, the load comes from another. As it is where the machine cannot do that. */
export function pinned(role: keyof typeof CORES, command: readonly string[]): readonly string[] {
  return canPin ? ["taskset", "--cpu-list", String(CORES[role]), ...command] : command;
}

/** In words. */
export const pinning = canPin
  ? "servers on one core, the load from another"
  : "without taskset or a second core: servers and load share the machine";

function hasTaskset(): boolean {
  try {
    execFileSync("taskset", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
