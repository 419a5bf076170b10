import { randomBytes } from "node:crypto";
import { closeSync } from "node:fs";
import type { Caller, CallerAttestor } from "../attestation/caller.js";
import type { ExpectedProgram, GrantedLaunch } from "../attestation/launched-process.js";
import type { LaunchRegistry } from "../attestation/launches.js";
import { CodedError } from "../coded-error.js";
import type { Config, LaunchConfig } from "../config/config.js";
import type { DoorAnswer, DoorRequest, SandboxGrant } from "../control-api/sandbox-view.js";
import { socketPathIn } from "../platform/directories.js";
import type { Platform } from "../platform/platform.js";
import type { Relay } from "../relay/relay.js";
import type { SandboxPlan } from "../sandbox/plan.js";
import { type LaunchInside, type LaunchSocket, openLaunchSocket, type RefusedInside } from "./launch-socket.js";
import { type Door, openDoor } from "./sandbox-door.js";
import { type OwnPlaces, planLaunch } from "./sandbox-plan.js";
import { requireConfined, requireDescent } from "./sandbox-walls.js";

/** What of the daemon a sandbox is made with. */
export interface SandboxesOptions extends OwnPlaces {
  readonly platform: Platform;
  readonly attestor: CallerAttestor;
  readonly launches: LaunchRegistry;
  readonly relay: Pick<Relay, "ports" | "listenInside">;
  /** Network namespaces of sandboxes: who is in one has no identity but by its launch. */
  readonly networks: Set<string>;
  readonly config: () => Config;
  /** Puts on record that somebody inside asked for what he may not. */
  readonly refusedInside: RefusedInside;
}

export interface SandboxedLaunch {
  /** The process that asked, and stays outside. */
  readonly asker: { readonly pid: number; readonly startTime: bigint };
  readonly granted: GrantedLaunch;
  /** Whether processes that descend from it have anything from that. */
  readonly descendants: boolean;
  readonly launch: LaunchConfig;
  readonly executable: string;
  /** Absolute. */
  readonly files: readonly string[];
  /** Compares with the lock once more and says what the process must become. Throws CodedError `launch-refused`. */
  readonly expected: () => Promise<ExpectedProgram>;
  /** Called before the answer, when process `pid` inside is granted the launch. */
  readonly record: (pid: number) => void;
  readonly refused: (reason: string) => void;
  /** Grants launches of the sub-agents that its entry names, in the same walls. Undefined where it names none: then nobody can ask inside. */
  readonly subagents: LaunchInside | undefined;
}

export interface Sandboxes {
  /**
   * Prepares one launch: says what its sandbox shows, and opens a door into it, a socket that exists for this launch alone. The process that comes through
   * the door becomes the agent (D7): it is inside by the kernel's word, and its next program is followed from here on.
   * Throws CodedError `launch-refused` when the entry asks for what a sandbox never shows.
   */
  prepare(launch: SandboxedLaunch): Promise<SandboxGrant>;
  close(): Promise<void>;
}

/** A launch from the grant to the end of its sandbox. */
interface Prepared {
  readonly launch: SandboxedLaunch;
  readonly plan: SandboxPlan;
  readonly launchSocket: LaunchSocket | undefined;
  admitted: boolean;
}

/** The kernel ends everything inside with the agent; until then it stays known as inside. */
const FORGET_AFTER_MS = 60_000;

export function createSandboxes(options: SandboxesOptions): Sandboxes {
  const { platform, launches, relay, attestor, runtimeDirectory } = options;
  const doors = new Set<Door>();
  const running = new Map<string, () => Promise<void>>();
  const ended = new Map<NodeJS.Timeout, () => void>();
  launches.onGone(({ pid, startTime }) => void end(keyOf(pid, startTime)));

  async function end(key: string): Promise<void> {
    const close = running.get(key);
    running.delete(key);
    await close?.();
  }

  /** Everything that is asked of the process at the door. Returns what it is to execute. */
  async function admit(inside: Caller, request: DoorRequest, door: Door, prepared: Prepared): Promise<DoorAnswer> {
    const { launch, plan, launchSocket } = prepared;
    const { pid, startTime, execGeneration } = inside.facts;
    requireDescent(platform, pid, launch.asker);
    requireConfined(platform, pid, plan);
    const expected = await launch.expected();
    // From here until it is shut without a pause: one process comes through.
    if (!door.isOpen())
      throw new CodedError("launch-refused", "the door of this launch is shut", { hint: "launch it again" });
    const name = platform.networkOf(pid);
    const network = platform.openNetwork(pid);
    let closeListeners: () => Promise<void> = async () => {};
    try {
      closeListeners = relay.listenInside(network, takeListeners(platform, pid, request, relay.ports()));
      // All of the above was of this very process, and still in the program that asks.
      inside.recheck();
      launches.begin({
        ...launch.granted,
        launcher: { pid, startTime, execGeneration },
        descendants: launch.descendants,
        expected: { ...expected, otherMounts: true },
      });
    } catch (thrown) {
      await closeListeners();
      network.close();
      throw thrown;
    }
    prepared.admitted = true;
    door.shut();
    if (name !== undefined) {
      options.networks.add(name);
      launchSocket?.admitFrom(name);
    }
    running.set(keyOf(pid, startTime), async () => {
      await Promise.all([closeListeners(), launchSocket?.close()]);
      if (name === undefined) return network.close();
      // Held open it keeps its name: freed, the kernel would give that to the next sandbox, which would then be forgotten in its place.
      const timer = setTimeout(() => {
        ended.delete(timer);
        options.networks.delete(name);
        network.close();
      }, FORGET_AFTER_MS).unref();
      ended.set(timer, () => network.close());
    });
    try {
      launch.record(pid);
    } catch (thrown) {
      // What is not on record is not in force.
      launches.withdraw(pid, startTime);
      throw thrown;
    }
    return { executable: expected.exePath, argv: [...expected.argv] };
  }

  async function openLaunchSocketFor(
    { launch: { sandbox }, subagents }: SandboxedLaunch,
    plan: SandboxPlan,
    path: string,
  ): Promise<LaunchSocket | undefined> {
    if (subagents === undefined) return undefined;
    const { read, write } = sandbox ?? { read: [], write: [] };
    const walls = { read, write, require: (pid: number) => requireConfined(platform, pid, plan) };
    return openLaunchSocket(path, { platform, launches, launch: subagents, walls, refused: options.refusedInside });
  }

  async function openFor(prepared: Prepared, path: string): Promise<void> {
    const { launch, launchSocket } = prepared;
    const door: Door = await openDoor({
      path,
      asker: platform.openProcess({ pid: launch.asker.pid }),
      attestor,
      admit: (inside, request, here) => admit(inside, request, here, prepared),
      refused: launch.refused,
      onShut() {
        doors.delete(door);
        if (!prepared.admitted) void launchSocket?.close();
      },
    });
    doors.add(door);
  }

  return {
    async prepare(launch) {
      const nameOfSocket = (kind: string) =>
        socketPathIn(runtimeDirectory, `${kind}-${randomBytes(8).toString("hex")}`);
      const door = nameOfSocket("door");
      const asking = launch.subagents === undefined ? undefined : nameOfSocket("launch");
      const { granted, executable, files } = launch;
      const wanted = { name: granted.name, launch: launch.launch, executable, files, door, launchSocket: asking };
      const plan = planLaunch(wanted, options.config(), options);
      const grant: SandboxGrant = {
        view: { ...plan.view, mounts: [...plan.view.mounts] },
        ports: [...relay.ports()],
        wall: platform.name === "darwin" ? "profile" : "namespaces",
      };
      if (grant.wall === "profile") return grant;
      const launchSocket = asking === undefined ? undefined : await openLaunchSocketFor(launch, plan, asking);
      try {
        await openFor({ launch, plan, launchSocket, admitted: false }, door);
      } catch (thrown) {
        await launchSocket?.close();
        throw thrown;
      }
      return grant;
    },
    async close() {
      for (const door of doors) door.shut();
      await Promise.all([...running.keys()].map(end));
      // The names stay: who is still inside must not become anybody else while the rest stops.
      for (const [timer, release] of ended) {
        clearTimeout(timer);
        release();
      }
      ended.clear();
    },
  };
}

function takeListeners(
  platform: Platform,
  pid: number,
  { listening }: DoorRequest,
  ports: readonly number[],
): ReadonlyMap<number, readonly number[]> {
  const taken: number[] = [];
  const take = (fd: number): number => {
    const own = platform.takeDescriptor(pid, fd);
    taken.push(own);
    return own;
  };
  try {
    return new Map(
      listening
        .filter(({ port }, index) => ports.includes(port) && listening.findIndex((one) => one.port === port) === index)
        .map(({ port, descriptors }) => [port, descriptors.map(take)]),
    );
  } catch (thrown) {
    for (const fd of taken) closeSync(fd);
    throw thrown;
  }
}

function keyOf(pid: number, startTime: bigint): string {
  return `${pid}:${startTime}`;
}
