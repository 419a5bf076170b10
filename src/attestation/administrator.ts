import type { Ancestor, Platform } from "../platform/platform.js";

export interface AdministratorRules {
  /** The daemon's own user. */
  readonly ownerUid: number;
  isAgent(pid: number, startTime: bigint): boolean;
  /** Whether a process is known to adopt what agents orphan. */
  isAdopter(pid: number, startTime: bigint): boolean;
  /** Start time of the oldest agent; undefined before any launch. */
  readonly firstLaunchStartTime: bigint | undefined;
  readonly platform: Pick<Platform, "ancestors">;
}

export type Administration =
  | { readonly allowed: true; readonly evidence: string }
  | { readonly allowed: false; readonly reason: string };

/**
 * Processes that adopt orphans. A young child of one of them may be anybody's orphan: its real parent is not known any more. A process can give itself
 * such a name, which only gets its children refused.
 */
const ADOPTERS: ReadonlySet<string> = new Set([
  "init",
  "systemd",
  "tini",
  "dumb-init",
  "docker-init",
  "catatonit",
  "conmon",
  "runit",
  "runsvdir",
  "s6-svscan",
  "containerd-shim",
  "containerd-shim-runc-v2",
  "launchd",
  "supervisord",
]);

/**
 * Whether a process may administer the trust domain (D25): it must be the owner's, and it must be *shown* not to descend from an agent, by a chain of
 * parents without a gap up to a process that started before any agent did. The chain is read twice, so that a process that is being re-parented
 * meanwhile is not believed.
 */
export function mayAdminister(
  peer: { readonly pid: number; readonly startTime: bigint; readonly uid: number },
  { ownerUid, isAgent, isAdopter, firstLaunchStartTime, platform }: AdministratorRules,
): Administration {
  if (peer.uid !== ownerUid) return refused(`user ${peer.uid} does not own this trust domain`);
  const chain = platform.ancestors(peer.pid);
  if (isAgent(peer.pid, peer.startTime)) return refused("an agent may not administer the trust domain it lives in");
  const agent = chain.find((ancestor) => isAgent(ancestor.pid, ancestor.startTime));
  if (agent !== undefined) return refused(`it was started by an agent (process ${agent.pid}, ${agent.name})`);
  if (firstLaunchStartTime === undefined)
    return { allowed: true, evidence: "the owner, before any agent was launched" };
  if (peer.startTime < firstLaunchStartTime)
    return { allowed: true, evidence: "the owner, in a process older than any agent" };

  const evidence = evidenceIn(chain, firstLaunchStartTime, isAdopter);
  if (!sameChain(chain, platform.ancestors(peer.pid)))
    return refused(`its parents changed while they were read: ${GAP_HINT}`);
  return evidence;
}

const GAP_HINT = "use the dashboard";

/** Walks up to the first ancestor that is older than any agent; that one must not be an adopter of orphans. */
function evidenceIn(
  chain: readonly Ancestor[],
  firstLaunch: bigint,
  isAdopter: AdministratorRules["isAdopter"],
): Administration {
  for (const ancestor of chain) {
    if (ancestor.pid === 1 || ADOPTERS.has(ancestor.name) || isAdopter(ancestor.pid, ancestor.startTime)) {
      return refused(
        `${ancestor.name} (process ${ancestor.pid}) adopts orphans and may have adopted it, so nothing shows that no agent started it: ${GAP_HINT}`,
      );
    }
    if (ancestor.startTime < firstLaunch) {
      return {
        allowed: true,
        evidence: `the owner, descends from ${ancestor.name} (process ${ancestor.pid}), which is older than any agent`,
      };
    }
  }
  return refused(`the chain of its parents ends before a process older than any agent: ${GAP_HINT}`);
}

function sameChain(a: readonly Ancestor[], b: readonly Ancestor[]): boolean {
  return (
    a.length === b.length &&
    a.every((ancestor, index) => ancestor.pid === b[index]?.pid && ancestor.startTime === b[index]?.startTime)
  );
}

function refused(reason: string): Administration {
  return { allowed: false, reason };
}
