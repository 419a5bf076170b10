import { randomBytes } from "node:crypto";
import { chmodSync, closeSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { userInfo } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import type { Caller, CallerAttestor } from "../attestation/caller.js";
import type { ExpectedProgram, GrantedLaunch } from "../attestation/launched-process.js";
import type { LaunchRegistry } from "../attestation/launches.js";
import { CodedError, messageOf } from "../coded-error.js";
import type { Config, LaunchConfig } from "../config/config.js";
import { type DoorAnswer, type DoorRequest, doorRequest, type SandboxGrant } from "../control-api/sandbox-view.js";
import { CONFIG_FILE, socketPathIn } from "../platform/directories.js";
import type { Platform } from "../platform/platform.js";
import { descriptorOf } from "../platform/socket-descriptor.js";
import type { Relay } from "../relay/relay.js";
import { hostFiles } from "../sandbox/host-files.js";
import { planSandbox, type SandboxPlan, SandboxWishError } from "../sandbox/plan.js";

/** What of the daemon a sandbox is made with. */
export interface SandboxesOptions {
  readonly platform: Platform;
  readonly attestor: CallerAttestor;
  readonly launches: LaunchRegistry;
  readonly relay: Pick<Relay, "ports" | "listenInside">;
  /** Network namespaces of sandboxes: who is in one has no identity but by its launch. */
  readonly networks: Set<string>;
  readonly config: () => Config;
  readonly runtimeDirectory: string;
  readonly stateDirectory: string;
  /** Path of its socket. */
  readonly workloadApi: string;
  readonly environment: NodeJS.ProcessEnv;
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

/** From the grant until somebody inside asks: bubblewrap and Node start meanwhile. */
const DOOR_OPEN_MS = 30_000;
/** From connecting at the door until the question is there, and from the answer until the connection ends. */
const PATIENCE_AT_DOOR_MS = 5_000;
/** One comes through; a few more may try. */
const MAX_AT_DOOR = 4;
/** Who has gone comes through no door. */
const WATCH_ASKER_MS = 250;
const MAX_REQUEST_BYTES = 64 * 1024;
/** The kernel ends everything inside with the agent; until then it stays known as inside. */
const FORGET_AFTER_MS = 60_000;
const MUST_BE_APART = ["user", "mnt", "pid", "net", "ipc"] as const;

export function createSandboxes(options: SandboxesOptions): Sandboxes {
  const { platform, launches, relay } = options;
  const doors = new Set<() => void>();
  const running = new Map<string, () => Promise<void>>();
  const ended = new Map<NodeJS.Timeout, () => void>();
  launches.onGone(({ pid, startTime }) => void end(keyOf(pid, startTime)));

  async function end(key: string): Promise<void> {
    const close = running.get(key);
    running.delete(key);
    await close?.();
  }

  /** Everything that is asked of the process at the door. Returns what it is to execute. */
  async function admit(
    inside: Caller,
    request: DoorRequest,
    { launch, plan, isOpen, shut }: Door,
  ): Promise<DoorAnswer> {
    const { pid, startTime, execGeneration } = inside.facts;
    requireDescent(platform, pid, launch.asker);
    requireConfined(platform, pid, plan);
    const expected = await launch.expected();
    // From here until it is shut without a pause: one process comes through.
    if (!isOpen())
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
    shut();
    if (name !== undefined) options.networks.add(name);
    running.set(keyOf(pid, startTime), async () => {
      await closeListeners();
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

  async function answerAtDoor(connection: Socket, door: Door): Promise<void> {
    let answer: DoorAnswer;
    try {
      // At accept: the kernel's word on who connected.
      const inside = await options.attestor.ofUnixSocket(descriptorOf(connection));
      try {
        answer = await admit(inside, doorRequest.parse(JSON.parse(await firstLine(connection))), door);
      } finally {
        inside.close();
      }
    } catch (thrown) {
      const hint = thrown instanceof CodedError ? thrown.hint : undefined;
      answer = { refused: messageOf(thrown), ...(hint === undefined ? {} : { hint }) };
      try {
        door.launch.refused(answer.refused);
      } catch (unrecorded) {
        answer = { ...answer, refused: `${answer.refused} (not on record: ${messageOf(unrecorded)})` };
      }
    }
    connection.setTimeout(PATIENCE_AT_DOOR_MS, () => connection.destroy());
    connection.end(`${JSON.stringify(answer)}\n`);
  }

  return {
    async prepare(launch) {
      const path = socketPathIn(options.runtimeDirectory, `door-${randomBytes(8).toString("hex")}`);
      const plan = planFor(launch, path, options);
      const grant: SandboxGrant = {
        view: { ...plan.view, mounts: [...plan.view.mounts] },
        ports: [...relay.ports()],
        wall: platform.name === "darwin" ? "profile" : "namespaces",
      };
      if (grant.wall === "profile") return grant;
      const connections = new Set<Socket>();
      const door = createServer((connection) => {
        connections.add(connection);
        connection.once("close", () => connections.delete(connection));
        connection.on("error", () => connection.destroy());
        const here: Door = { launch, plan, isOpen: () => doors.has(shut), shut: () => shut(connection) };
        answerAtDoor(connection, here).catch(() => connection.destroy());
      });
      door.maxConnections = MAX_AT_DOOR;
      const asker = platform.openProcess({ pid: launch.asker.pid });
      const shut = (but?: Socket) => {
        if (!doors.delete(shut)) return;
        clearTimeout(timer);
        clearInterval(watch);
        asker.close();
        door.close();
        for (const connection of connections) if (connection !== but) connection.destroy();
      };
      const timer = setTimeout(() => shut(), DOOR_OPEN_MS).unref();
      const watch = setInterval(() => asker.isAlive() || shut(), WATCH_ASKER_MS).unref();
      doors.add(shut);
      try {
        await listenPrivately(door, path);
      } catch (thrown) {
        shut();
        throw thrown;
      }
      return grant;
    },
    async close() {
      for (const shut of doors) shut();
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

interface Door {
  readonly launch: SandboxedLaunch;
  readonly plan: SandboxPlan;
  isOpen(): boolean;
  /** For everybody else. */
  shut(): void;
}

function planFor(launch: SandboxedLaunch, door: string, options: SandboxesOptions): SandboxPlan {
  const config = options.config();
  const { projectDirectory, policiesDirectory, services, upstreamAuthority, federation, oidc } = config;
  const sockets = services.flatMap(({ upstream }) => (upstream.kind === "unix" ? [upstream.path] : []));
  const keys = [upstreamAuthority?.key, federation.endpoint?.web?.key, oidc?.web?.key].filter(
    (key) => key !== undefined,
  );
  try {
    return planSandbox(
      {
        projectDirectory,
        homes: homesOf(options.environment),
        // A socket is hidden with its folder: whoever replaces the socket outside must not uncover it inside.
        hidden: [
          options.stateDirectory,
          join(projectDirectory, ".agentid"),
          dirname(options.runtimeDirectory),
          ...sockets.map((path) => (dirname(path) === projectDirectory ? path : dirname(path))),
          ...keys,
        ],
        protected: [
          join(projectDirectory, CONFIG_FILE),
          join(projectDirectory, "agentid.lock"),
          join(projectDirectory, "entities.yaml"),
          policiesDirectory,
          ...(config.file === undefined ? [] : [config.file]),
        ],
        workingDirectory: launch.launch.workingDirectory,
        executable: launch.executable,
        files: launch.files,
        read: launch.launch.sandbox?.read ?? [],
        write: launch.launch.sandbox?.write ?? [],
        workloadApi: options.workloadApi,
        door,
      },
      hostFiles,
    );
  } catch (thrown) {
    if (!(thrown instanceof SandboxWishError)) throw thrown;
    throw new CodedError("launch-refused", `the sandbox of ${launch.granted.name} cannot be made: ${thrown.message}`, {
      hint: `see launch.sandbox of ${launch.granted.name} in ${CONFIG_FILE}`,
      cause: thrown,
    });
  }
}

/** The account's home, and what this terminal takes for it. */
function homesOf({ HOME }: NodeJS.ProcessEnv): readonly string[] {
  const named = HOME !== undefined && isAbsolute(HOME) ? [HOME] : [];
  return [...new Set([...named, ...accountHome()].map(hostFiles.real))];
}

function accountHome(): readonly string[] {
  try {
    return [userInfo().homedir];
  } catch {
    return []; // a user without an account
  }
}

/** The process at the door must come from the process that asked, whatever stands in between. */
function requireDescent(platform: Platform, pid: number, asker: { pid: number; startTime: bigint }): void {
  const comesFrom = platform
    .ancestors(pid)
    .some((ancestor) => ancestor.pid === asker.pid && ancestor.startTime === asker.startTime);
  if (!comesFrom) throw unconfined(`process ${pid} does not descend from process ${asker.pid}, which asked`);
}

/** The walls, by the kernel's word and not by that of the program that was asked to build them. */
function requireConfined(platform: Platform, pid: number, { hidden, readOnly, writable }: SandboxPlan): void {
  const confinement = platform.confinementOf(pid);
  const shared = MUST_BE_APART.filter((kind) => !confinement.apart.has(kind));
  if (shared.length > 0) throw unconfined(`it shares the ${shared.join(", ")} namespace with everybody`);
  if (!confinement.powerless) throw unconfined("it has capabilities");
  if (!confinement.noNewPrivileges || !confinement.filtered) throw unconfined("its system calls are not filtered");
  const seen = hidden.find((path) => confinement.sees(path));
  if (seen !== undefined) throw unconfined(`it sees ${seen}`);
  const open = readOnly.find((path) => confinement.sees(path) && !confinement.findsReadOnly(path));
  if (open !== undefined) throw unconfined(`it may write ${open}`);
  // Somebody who may write beside such a folder could have put a link in its place while it was mounted.
  const other = writable.find((path) => hostFiles.real(path) !== path || !confinement.sees(path));
  if (other !== undefined) throw unconfined(`another folder stands at ${other}`);
}

function unconfined(how: string): CodedError {
  return new CodedError("launch-refused", `the process is not in the sandbox of this launch: ${how}`, {
    hint: "agentid run --sandbox makes it",
  });
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

function listenPrivately(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    // The umask closes the moment between bind and chmod in which others could connect.
    const umask = process.umask(0o177);
    server.listen(path, () => {
      chmodSync(path, 0o600);
      resolve();
    });
    process.umask(umask);
  });
}

/** Rejects when the connection ends, or patience does, before a line is there. */
function firstLine(connection: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const settle = (settled: () => void): void => {
      clearTimeout(timer);
      // What still comes is thrown away.
      connection.off("data", read);
      connection.off("close", gone);
      settled();
    };
    const fail = (why: string): void => settle(() => reject(new CodedError("bad-request", why)));
    const gone = (): void => fail("the connection ended before it asked");
    const read = (chunk: string): void => {
      text += chunk;
      const end = text.indexOf("\n");
      if (end !== -1) settle(() => resolve(text.slice(0, end)));
      else if (text.length > MAX_REQUEST_BYTES) fail("the request is too long");
    };
    const timer = setTimeout(() => fail("nothing was asked in time"), PATIENCE_AT_DOOR_MS).unref();
    if (connection.destroyed) return gone();
    connection.setEncoding("utf8");
    connection.on("data", read);
    connection.once("close", gone);
  });
}
