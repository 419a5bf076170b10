import { type Adopters, createAdopters } from "../attestation/adopters.js";
import { createCallerAttestor } from "../attestation/attestor.js";
import type { CallerAttestor } from "../attestation/caller.js";
import { takeDigestOfOwnExecutable } from "../attestation/early-digest.js";
import { executableDigests } from "../attestation/hash-cache.js";
import type { LaunchEnd } from "../attestation/launched-process.js";
import { createLaunchRegistry, type LaunchRegistry } from "../attestation/launches.js";
import { messageOf } from "../coded-error.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import type { Foundation } from "./foundation.js";
import { readKnownAgents, writeKnownAgents } from "./known-agents.js";
import { createLiveView, type LiveView } from "./live-view.js";

/** Who is who, by the kernel's word. */
export interface Attesting {
  readonly attestor: CallerAttestor;
  readonly launches: LaunchRegistry;
  readonly adopters: Adopters;
  readonly live: LiveView;
  /** Network namespaces of running sandboxes, as the platform names them. */
  readonly sandboxNetworks: Set<string>;
  /** Whether process `pid` is inside one of them now. */
  isSandboxed(pid: number): boolean;
  /** From now on a caller's parent and cgroup are looked at while identities ask for them; before that, cgroups are. */
  lookAsAskedBy(registry: Pick<IdentityRegistry, "asksForParents" | "asksForCgroups">): void;
  /** Writes down who is an agent, so that a `kill -9` forgets none. */
  rememberAgents(): void;
}

export function startAttesting({ platform, folders, bus, audit, undo, problem }: Foundation): Attesting {
  const digests = executableDigests({ early: takeDigestOfOwnExecutable() });
  const { agents: known, adopters: knownAdopters, firstLaunchStartTime } = readKnownAgents(folders.state);
  const adopters = createAdopters(platform, knownAdopters);
  const launches = createLaunchRegistry({
    platform,
    digests,
    known,
    ...(firstLaunchStartTime === undefined ? {} : { firstLaunchStartTime }),
    onProblem: (thrown) => problem("error", "launch", messageOf(thrown)),
  });
  undo.push(() => launches.close());
  const live = createLiveView(platform, launches);
  undo.push(bus.subscribe(0, (event) => live.take(event)));

  const sandboxNetworks = new Set<string>();
  const isSandboxed = (pid: number): boolean =>
    sandboxNetworks.size > 0 && sandboxNetworks.has(platform.networkOf(pid) ?? "");
  const uid = process.geteuid?.() ?? 0;
  launches.onStarted(({ name, granted: { launchedBy }, pid, startTime }) => {
    audit.append("launch.started", { identity: name, pid, ...(launchedBy.length > 0 && { launchedBy }) });
    live.seen(pid, startTime, [name]);
    const detail = "the pinned program runs";
    bus.emit({ event: "process", change: "launched", identity: name, pid, uid, detail });
  });
  launches.onEnded(({ name, pid, why, started, file }) => {
    audit.append("launch.ended", { identity: name, pid, why, started, ...(file !== undefined && { file }) });
    const detail = endOf(why, started, file);
    bus.emit({ event: "process", change: "ended", identity: name, pid, uid, detail });
  });
  let asked: Pick<IdentityRegistry, "asksForParents" | "asksForCgroups"> | undefined;
  return {
    attestor: createCallerAttestor({
      platform,
      launches,
      digests,
      parentsMatter: () => asked?.asksForParents ?? false,
      cgroupsMatter: () => asked?.asksForCgroups ?? true,
      isSandboxed,
    }),
    sandboxNetworks,
    isSandboxed,
    launches,
    adopters,
    live,
    lookAsAskedBy: (registry) => {
      asked = registry;
    },
    rememberAgents: () =>
      writeKnownAgents(folders.state, {
        agents: launches.agents(),
        adopters: adopters.all(),
        firstLaunchStartTime: launches.firstLaunchStartTime,
      }),
  };
}

function endOf(why: LaunchEnd, started: boolean, file: string | undefined): string {
  if (why === "withdrawn") return "it could not be recorded, so it was withdrawn";
  if (why === "replaced") return "its process has asked for another launch";
  if (why === "files") return `${file} is not what was pinned any more: start it again`;
  return started ? `ended by ${why}` : "never became the pinned program";
}
