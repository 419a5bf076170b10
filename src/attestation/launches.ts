import type { Platform, ProcessHandle } from "../platform/platform.js";
import { type Descent, descentOf, type MetOnTheWay } from "./descent.js";
import type { ExecutableDigests } from "./hash-cache.js";
import {
  type ExpectedProgram,
  type GrantedLaunch,
  type LaunchEnd,
  LaunchError,
  LaunchedProcess,
  launchedName,
} from "./launched-process.js";

interface BeginLaunch extends GrantedLaunch {
  /** The process that asked, as attested: it will execute the command (`Caller.facts` fits). */
  readonly launcher: { readonly pid: number; readonly startTime: bigint; readonly execGeneration: string | undefined };
  /** Whether processes that descend from it have anything from that: its identity, or the right to launch sub-agents. */
  readonly descendants: boolean;
  readonly expected: ExpectedProgram;
}

export interface LaunchEvent {
  /** Path of the SPIFFE ID, with the instance. */
  readonly name: string;
  readonly granted: GrantedLaunch;
  /** Whether other processes have anything from it. */
  readonly descendants: boolean;
  readonly pid: number;
  readonly startTime: bigint;
}

export interface LaunchEnded extends LaunchEvent {
  readonly why: LaunchEnd;
  /** The file that changed. */
  readonly file: string | undefined;
  /** False when the process ended without ever having become the pinned program. */
  readonly started: boolean;
}

/** A process that was launched as an agent, to be kept across restarts of the daemon within one boot. */
export interface KnownAgent {
  readonly pid: number;
  readonly startTime: bigint;
}

/**
 * Which processes are running launches of which identity (D7). The identity begins when the launched process has become the pinned program and
 * ends for ever at its next exec or its exit; that the process is an agent ends only with its exit.
 */
export interface LaunchRegistry {
  /** Follows the launcher from now on. Throws LaunchError, or ProcessError `process-gone`. */
  begin(launch: BeginLaunch): void;
  /** Ends for ever what `begin` began, whatever the process becomes; it stays an agent until its exit. */
  withdraw(pid: number, startTime: bigint): void;
  /** The launch whose identity this very program of this very process has at this moment. */
  launchOf(pid: number, startTime: bigint, execGeneration: string | undefined): GrantedLaunch | undefined;
  /**
   * That a process, which is no agent itself, descends from a launch that vouches for its descendants; read twice. Undefined otherwise. The answer's
   * handles must be closed, before those of `process`.
   */
  descentOf(process: ProcessHandle): Descent | undefined;
  /** Whether the instance lives, from its grant to the end of its identity. */
  hasInstance(name: string, instance: string): boolean;
  /** Which launch the living instance is: no two launches have the same. */
  launchOfInstance(name: string, instance: string): string | undefined;
  /** All living instances, oldest first. */
  readonly instances: readonly (GrantedLaunch & { readonly instance: string })[];
  /** True for every process ever launched and still alive, also after its identity has ended. */
  isAgent(pid: number, startTime: bigint): boolean;
  /** PIDs that were launched as `name` (with the instance, where there is one) and have the identity now. */
  runningPids(name: string): readonly number[];
  /** Of each running launch of `name` the SPIFFE IDs of the agents above it, nearest first. */
  chainsOf(name: string): readonly (readonly string[])[];
  /** All live agents. */
  pids(): readonly number[];
  agents(): readonly KnownAgent[];
  /** Looks at process `pid` at once instead of at the next poll; resolves when it is known whether its identity has begun. */
  checkNow(pid: number): Promise<void>;
  /** Start time of the oldest process ever launched; a process that started before it descends from no agent. */
  readonly firstLaunchStartTime: bigint | undefined;
  onStarted(listener: (event: LaunchEvent) => void): () => void;
  onEnded(listener: (event: LaunchEnded) => void): () => void;
  /** The process has exited. */
  onGone(listener: (event: LaunchEvent) => void): () => void;
  /** Stops watching. The processes go on. */
  close(): void;
}

export interface LaunchRegistryOptions {
  readonly platform: Platform;
  readonly digests: ExecutableDigests;
  /** Agents launched before this daemon started, in the same boot: they have no identity any more, and are agents still. */
  readonly known?: readonly KnownAgent[];
  /** As `firstLaunchStartTime` was before this daemon started, in the same boot. */
  readonly firstLaunchStartTime?: bigint;
  /** Told when a listener throws; the others hear all the same. */
  readonly onProblem?: (thrown: unknown) => void;
}

export function createLaunchRegistry(options: LaunchRegistryOptions): LaunchRegistry {
  const { platform, digests } = options;
  const launched = new Map<string, LaunchedProcess>();
  const former = new Map((options.known ?? []).map((agent) => [keyOf(agent.pid, agent.startTime), agent]));
  const startedListeners = new Set<(event: LaunchEvent) => void>();
  const endedListeners = new Set<(event: LaunchEnded) => void>();
  const goneListeners = new Set<(event: LaunchEvent) => void>();
  let firstLaunchStartTime = options.firstLaunchStartTime;
  for (const { startTime } of former.values()) firstLaunchStartTime = earlier(firstLaunchStartTime, startTime);

  const notify = <Event>(listeners: ReadonlySet<(event: Event) => void>, event: Event): void => {
    for (const listener of [...listeners]) {
      try {
        listener(event);
      } catch (thrown) {
        options.onProblem?.(thrown);
      }
    }
  };
  const formerIsAlive = ({ pid, startTime }: KnownAgent): boolean => {
    if (startTimeAt(platform, pid) === startTime) return true;
    former.delete(keyOf(pid, startTime));
    return false;
  };
  const met = (pid: number, startTime: bigint): MetOnTheWay => {
    const process = launched.get(keyOf(pid, startTime));
    if (process !== undefined) return process.isRunning() ? process : "agent";
    return former.has(keyOf(pid, startTime)) ? "agent" : undefined;
  };
  const launchesOf = (name: string, instance: string): LaunchedProcess[] =>
    [...launched.values()].filter(({ granted }) => granted.name === name && granted.instance === instance);
  const livingInstance = (name: string, instance: string): LaunchedProcess | undefined =>
    launchesOf(name, instance).find((process) => process.mayHaveIdentity());
  const ofPid = (pid: number): LaunchedProcess[] => [...launched.values()].filter((process) => process.pid === pid);
  const alive = (): LaunchedProcess[] => [...launched.values()].filter((process) => process.isAlive());

  return {
    begin({ launcher, name, instance, launchedBy, descendants, expected }) {
      if (launcher.execGeneration === undefined) {
        throw new LaunchError(
          "launch-unverifiable",
          "the kernel does not show when this process executes another program",
        );
      }
      const key = keyOf(launcher.pid, launcher.startTime);
      const granted: GrantedLaunch = { name, instance, launchedBy };
      if (instance !== undefined) {
        // What an instance had ends before the next one of its name begins, also where its exit was not noticed yet.
        for (const predecessor of launchesOf(name, instance)) predecessor.noticeExit();
        if (livingInstance(name, instance) !== undefined) {
          throw new LaunchError("instance-taken", `${launchedName(granted)} runs already`);
        }
      }
      const { pid, startTime } = launcher;
      const about = { name: launchedName(granted), granted, descendants, pid, startTime };
      // A launcher that asks again (another name, a second try) follows its newest grant only.
      launched.get(key)?.end("replaced");
      launched.get(key)?.close();
      const process = LaunchedProcess.follow({
        platform,
        digests,
        launcher: { ...launcher, execGeneration: launcher.execGeneration },
        granted,
        descendants,
        expected,
        started: () => notify(startedListeners, about),
        ended: (why, started, file) => notify(endedListeners, { ...about, why, started, file }),
        gone: () => {
          if (launched.get(key) === process) launched.delete(key);
          notify(goneListeners, about);
        },
      });
      launched.set(key, process);
      firstLaunchStartTime = earlier(firstLaunchStartTime, launcher.startTime);
    },
    withdraw(pid, startTime) {
      launched.get(keyOf(pid, startTime))?.end("withdrawn");
    },
    launchOf(pid, startTime, execGeneration) {
      const process = launched.get(keyOf(pid, startTime));
      return process?.hasIdentity(execGeneration) ? process.granted : undefined;
    },
    descentOf(process) {
      // Almost always nobody vouches for descendants, or only for younger ones: then no parent need be looked at.
      const vouching = [...launched.values()].filter((one) => one.wantsDescendants && one.isRunning());
      if (vouching.length === 0) return undefined;
      const since = startTimeOf(process);
      if (since === undefined || vouching.every((one) => one.startTime > since)) return undefined;
      return descentOf(process, platform, met);
    },
    hasInstance: (name, instance) => livingInstance(name, instance) !== undefined,
    launchOfInstance: (name, instance) => livingInstance(name, instance)?.id,
    get instances() {
      return [...launched.values()].flatMap((process) => {
        const { instance } = process.granted;
        return instance !== undefined && process.mayHaveIdentity() ? [{ ...process.granted, instance }] : [];
      });
    },
    isAgent(pid, startTime) {
      const key = keyOf(pid, startTime);
      const agent = former.get(key);
      return launched.get(key)?.isAlive() === true || (agent !== undefined && formerIsAlive(agent));
    },
    runningPids: (name) =>
      alive().flatMap((process) =>
        launchedName(process.granted) === name && process.isRunning() ? [process.pid] : [],
      ),
    chainsOf: (name) =>
      alive().flatMap((process) =>
        launchedName(process.granted) === name && process.isRunning() ? [process.granted.launchedBy] : [],
      ),
    pids: () => alive().map((process) => process.pid),
    agents: () => [
      ...alive().map(({ pid, startTime }) => ({ pid, startTime })),
      ...[...former.values()].filter(formerIsAlive),
    ],
    async checkNow(pid) {
      await Promise.all(ofPid(pid).map((process) => process.check()));
    },
    get firstLaunchStartTime() {
      return firstLaunchStartTime;
    },
    onStarted: (listener) => subscribe(startedListeners, listener),
    onEnded: (listener) => subscribe(endedListeners, listener),
    onGone: (listener) => subscribe(goneListeners, listener),
    close() {
      for (const process of launched.values()) process.close();
      launched.clear();
    },
  };
}

function keyOf(pid: number, startTime: bigint): string {
  return `${pid}:${startTime}`;
}

function earlier(a: bigint | undefined, b: bigint): bigint {
  return a === undefined || b < a ? b : a;
}

function startTimeAt(platform: Platform, pid: number): bigint | undefined {
  try {
    const handle = platform.openProcess({ pid });
    try {
      return startTimeOf(handle);
    } finally {
      handle.close();
    }
  } catch {
    return undefined; // it has exited
  }
}

function startTimeOf(handle: ProcessHandle): bigint | undefined {
  try {
    return handle.status().startTime;
  } catch {
    return undefined; // it has exited
  }
}

function subscribe<Listener>(listeners: Set<Listener>, listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
