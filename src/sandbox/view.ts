/**
 * What a sandboxed process sees of the file system: everything that is not named here does not exist inside. Pure data, so that one description serves
 * bubblewrap (`bubblewrap.ts`) and macOS (`seatbelt.ts`), and travels from the daemon to `agentid run`.
 */
export type Mount =
  /** The file, folder or socket `source`, at `at`. */
  | { readonly show: "read" | "write"; readonly source: string; readonly at: string }
  /** A symbolic link as it stands outside; where it leads is looked up inside. */
  | { readonly show: "link"; readonly at: string; readonly to: string }
  /** An empty folder in memory. A sealed one only carries what is mounted below it. */
  | { readonly show: "empty"; readonly at: string; readonly sealed: boolean };

export interface SandboxView {
  readonly mounts: readonly Mount[];
  readonly workingDirectory: string;
}

/** Where agentid's own things stand inside. */
export const INSIDE = {
  workloadApi: "/run/agentid/workload.sock",
  door: "/run/agentid/door.sock",
  launchSocket: "/run/agentid/launch.sock",
  node: "/run/agentid/node",
  library: "/run/agentid/lib",
  /** The command `agentid`. */
  bin: "/run/agentid/bin",
} as const;

/** Parents before what stands in them, whatever order they were named in. */
export function inMountOrder(mounts: readonly Mount[]): readonly Mount[] {
  const depth = ({ at }: Mount): number => at.split("/").length;
  return mounts.toSorted((a, b) => depth(a) - depth(b));
}
