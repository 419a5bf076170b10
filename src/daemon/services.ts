import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { messageOf } from "../coded-error.js";
import type { ServiceConfig } from "../config/config.js";
import type { Clock } from "../platform/clock.js";
import type { Platform } from "../platform/platform.js";
import { signalGroup, writeChildren } from "./orphans.js";

export type ServiceState = "starting" | "running" | "stopped" | "failed";

/** Starts the services whose upstream is a command, keeps them running, and leaves none behind. */
export interface ServiceSupervisor {
  /** Starts what is new, restarts what changed, stops what is gone. Resolves when each new one listens or has failed. */
  update(services: readonly ServiceConfig[]): Promise<void>;
  /** Unix socket on which a started service listens. It lies in a directory that only this user may enter. */
  socketOf(name: string): string;
  stateOf(name: string): ServiceState | undefined;
  pidOf(name: string): number | undefined;
  stop(): Promise<void>;
}

export interface ServiceSupervisorOptions {
  /** Private directory (0700) for the services' sockets. */
  readonly socketDirectory: string;
  /** Where the list of running ones goes, for the next daemon. */
  readonly runtimeDirectory: string;
  /** Where the services' output goes: `.agentid/`, or a temporary folder when nothing is to be kept. */
  readonly stateDirectory: string;
  readonly clock: Clock;
  readonly platform: Platform;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly onProblem: (service: string, message: string) => void;
}

interface Running {
  readonly config: ServiceConfig;
  child: ChildProcess | undefined;
  state: ServiceState;
  restarts: number;
  cancelRestart: (() => void) | undefined;
  wanted: boolean;
}

const START_DEADLINE_MS = 15_000;
const STOP_GRACE_MS = 2_000;
const MAX_RESTART_DELAY_MS = 30_000;

export function createServiceSupervisor(options: ServiceSupervisorOptions): ServiceSupervisor {
  const running = new Map<string, Running>();
  const logs = join(options.stateDirectory, "logs");
  mkdirSync(options.socketDirectory, { recursive: true, mode: 0o700 });
  mkdirSync(logs, { recursive: true, mode: 0o700 });

  const socketOf = (name: string) => join(options.socketDirectory, `${name}.sock`);

  async function start(service: Running): Promise<void> {
    const { config } = service;
    if (config.upstream.kind !== "command") return;
    const socketPath = socketOf(config.name);
    rmSync(socketPath, { force: true });
    const [command = "", ...args] = config.upstream.argv;
    setState(service, "starting");
    const log = openSync(join(logs, `${config.name}.log`), "a", 0o600);
    const child = spawn(command, args, {
      cwd: config.upstream.workingDirectory,
      env: { ...options.environment, AGENTID_LISTEN: socketPath },
      stdio: ["ignore", log, log],
      // A group of its own: Ctrl-C in the terminal reaches us, and we end it in order.
      detached: true,
    });
    closeSync(log);
    service.child = child;
    const ended = new Promise<string>((resolve) => {
      child.once("error", (error) => resolve(messageOf(error)));
      child.once("exit", (code, signal) => resolve(signal ? `ended by ${signal}` : `ended with code ${code}`));
    });
    writeList();
    void ended.then((how) => afterEnd(service, child, how));
    const listening = await Promise.race([untilListening(socketPath, child), ended.then(() => false)]);
    if (service.child !== child) return;
    if (listening) {
      service.restarts = 0;
      setState(service, "running");
    } else if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
      setState(service, "failed");
      options.onProblem(
        config.name,
        `does not listen on the socket named by AGENTID_LISTEN after ${START_DEADLINE_MS / 1000} s`,
      );
    }
  }

  function afterEnd(service: Running, child: ChildProcess, how: string): void {
    if (service.child !== child) return;
    service.child = undefined;
    writeList();
    if (!service.wanted) return;
    setState(service, "failed");
    service.restarts += 1;
    const delayMs = Math.min(MAX_RESTART_DELAY_MS, 250 * 2 ** Math.min(service.restarts, 10));
    options.onProblem(
      service.config.name,
      `${how}; starting again in ${delayMs / 1000} s. Its output is in ${join(logs, `${service.config.name}.log`)}`,
    );
    service.cancelRestart = options.clock.after(delayMs, () => void start(service));
  }

  async function end(service: Running): Promise<void> {
    service.wanted = false;
    service.cancelRestart?.();
    const { child } = service;
    const pid = child?.pid;
    if (child !== undefined && pid !== undefined && child.exitCode === null && child.signalCode === null) {
      const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
      signalGroup(pid, "SIGTERM");
      const kill = setTimeout(() => signalGroup(pid, "SIGKILL"), STOP_GRACE_MS);
      await ended;
      clearTimeout(kill);
      // What the service itself started and left in its group goes with it.
      signalGroup(pid, "SIGKILL");
    }
    service.child = undefined;
    rmSync(socketOf(service.config.name), { force: true });
    setState(service, "stopped");
  }

  function setState(service: Running, state: ServiceState): void {
    service.state = state;
  }

  function writeList(): void {
    const pids = [...running.values()].flatMap(({ child }) => (child?.pid === undefined ? [] : [child.pid]));
    writeChildren(options.runtimeDirectory, pids, options.platform);
  }

  return {
    socketOf,
    stateOf: (name) => running.get(name)?.state,
    pidOf: (name) => running.get(name)?.child?.pid,
    async update(services) {
      const wanted = new Map(services.filter(({ upstream }) => upstream.kind === "command").map((s) => [s.name, s]));
      const ending: Promise<void>[] = [];
      for (const [name, service] of running) {
        const next = wanted.get(name);
        if (next && JSON.stringify(next.upstream) === JSON.stringify(service.config.upstream)) continue;
        running.delete(name);
        ending.push(end(service));
      }
      await Promise.all(ending);
      const starting: Promise<void>[] = [];
      for (const [name, config] of wanted) {
        if (running.has(name)) continue;
        const service: Running = {
          config,
          child: undefined,
          state: "stopped",
          restarts: 0,
          cancelRestart: undefined,
          wanted: true,
        };
        running.set(name, service);
        starting.push(start(service));
      }
      await Promise.all(starting);
    },
    async stop() {
      const all = [...running.values()];
      await Promise.all(all.map(end));
      running.clear();
    },
  };
}

/** Resolves true as soon as something accepts on `path`, false when the deadline passes or the process ends. */
async function untilListening(path: string, child: ChildProcess): Promise<boolean> {
  const deadline = Date.now() + START_DEADLINE_MS;
  while (Date.now() < deadline && child.exitCode === null && child.signalCode === null) {
    if (await accepts(path)) return true;
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
  return false;
}

function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
