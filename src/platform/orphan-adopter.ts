import { spawnSync } from "node:child_process";

/** A process whose parent exits at once; it says who has adopted it. */
const ORPHAN =
  '(while read -r _ _ _ parent _ </proc/self/stat && [ "$parent" = "$$" ]; do :; done; echo "$parent") 2>/dev/null &';

/**
 * The process that adopts what is orphaned below this one: the nearest ancestor that has made itself a subreaper, else init. The kernel tells nobody who
 * is a subreaper, so it is tried. Undefined where it cannot be.
 */
export function adopterOfOrphans(): number | undefined {
  if (process.platform !== "linux") return 1; // launchd: macOS has no subreapers
  const { stdout } = spawnSync("/bin/sh", ["-c", ORPHAN], {
    stdio: ["ignore", "pipe", "ignore"],
    encoding: "latin1",
    env: {},
    timeout: 2000,
  });
  const pid = Number(stdout);
  return Number.isSafeInteger(pid) && pid > 0 ? pid : undefined;
}
