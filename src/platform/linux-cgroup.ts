/**
 * Control groups: the text of `/proc/PID/cgroup` (cgroups(7)) and what systemd, container runtimes and Kubernetes write into the names. Pure.
 */

/**
 * The path in the unified hierarchy; on machines where that is not in use, in the one that systemd keeps for itself. Undefined for the root, which says
 * nothing, and for a group outside our cgroup namespace.
 */
export function cgroupPath(text: string): string | undefined {
  const lines = text.split("\n");
  for (const start of ["0::", "1:name=systemd:"]) {
    const path = lines.find((line) => line.startsWith(start) || line.endsWith(start))?.slice(start.length);
    if (path === undefined || path === "/" || path.startsWith("/..")) continue;
    return path;
  }
  return undefined;
}

export interface CgroupNames {
  /** The system manager's unit: for the processes of a user's own manager `user@1000.service`. */
  readonly systemdUnit?: string;
  /** The unit of that user's own manager. */
  readonly systemdUserUnit?: string;
  /** 64 hex digits. */
  readonly containerId?: string;
  readonly podUid?: string;
}

const UNIT = /^[A-Za-z0-9:_.\\@-]+\.(service|scope|socket|mount|swap)$/;
const SLICE = /^[A-Za-z0-9:_.\\@-]+\.slice$/;
const CONTAINER = /^(?:[a-z][a-z-]*-)?([0-9a-f]{64})(?:\.scope)?$/;
const POD = /^(?:kubepods(?:-[a-z]+)?-)?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})(?:\.slice)?$/;

/** What the names in the path say. Only the manager that owns a level names the next one, so the first unit counts, and nothing below it. */
export function cgroupNames(path: string): CgroupNames {
  const names = path.split("/").filter((name) => name !== "");
  const system = firstUnit(names);
  const user = system !== undefined && /^user@\d+\.service$/.test(system.unit) ? firstUnit(system.below) : undefined;
  const container = names.flatMap((name) => CONTAINER.exec(name)?.[1] ?? []).at(-1);
  const pod = names.flatMap((name) => POD.exec(name)?.[1] ?? [])[0];
  return {
    ...(system !== undefined && { systemdUnit: system.unit }),
    ...(user !== undefined && { systemdUserUnit: user.unit }),
    ...(container !== undefined && { containerId: container }),
    ...(pod !== undefined && { podUid: pod.replaceAll("_", "-") }),
  };
}

/** As systemd's own cg_path_get_unit reads it: after the slices comes the unit. */
function firstUnit(names: readonly string[]): { unit: string; below: readonly string[] } | undefined {
  const at = names.findIndex((name) => !SLICE.test(name));
  // systemd puts "_" before a name that would clash with a file of the kernel.
  const unit = names[at]?.replace(/^_/, "");
  return unit !== undefined && UNIT.test(unit) ? { unit, below: names.slice(at + 1) } : undefined;
}
