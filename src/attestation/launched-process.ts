import { closeSync } from "node:fs";
import { basename } from "node:path";
import type { HeldProgram, Platform, ProcessHandle } from "../platform/platform.js";
import { processGone } from "../platform/process-errors.js";
import type { ExecutableDigests } from "./hash-cache.js";

/** What a launched process must become to have its identity. */
export interface ExpectedProgram {
  readonly exePath: string;
  /** Lower-case hex. */
  readonly exeSha256: string;
  /** The command line as it will stand in the end; `expectedProgram` of pinning.ts computes it for scripts. */
  readonly argv: readonly string[];
}

export interface FollowedLaunch {
  readonly platform: Platform;
  readonly digests: ExecutableDigests;
  readonly launcher: { readonly pid: number; readonly startTime: bigint; readonly execGeneration: string };
  readonly name: string;
  readonly expected: ExpectedProgram;
  readonly started: () => void;
  /** Once: the identity has ended, or can no longer begin. */
  readonly ended: (why: "exit" | "exec", started: boolean) => void;
  /** Once: the process has exited. */
  readonly gone: () => void;
}

/** An exec chain of shims takes milliseconds, and the identity should be there before the program asks for it. */
const FAST_POLL_MS = 1.5;
const FAST_FOR_MS = 10_000;
const SLOW_POLL_MS = 100;

/**
 * One launched process on its way: `waiting` (still the launcher, or a shim) → `running` (it is the pinned program and has the identity) →
 * `over` (it executed something else) → `gone` (it exited). There is no way back.
 */
export class LaunchedProcess {
  readonly name: string;
  readonly pid: number;
  readonly startTime: bigint;
  readonly #launch: FollowedLaunch;
  readonly #handle: ProcessHandle;
  #state: "waiting" | "running" | "over" | "gone" = "waiting";
  /** The generation looked at last; the running one while `running`. */
  #generation: string;
  #program: HeldProgram | undefined;
  /** The program was lost and no other was seen yet. */
  #unseen = false;
  #checking: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #fastUntil = performance.now() + FAST_FOR_MS;

  private constructor(launch: FollowedLaunch, handle: ProcessHandle) {
    this.#launch = launch;
    this.#handle = handle;
    this.name = launch.name;
    this.pid = launch.launcher.pid;
    this.startTime = launch.launcher.startTime;
    this.#generation = launch.launcher.execGeneration;
    this.#schedule();
  }

  /** Throws ProcessError `process-gone` when the launcher is no more. */
  static follow(launch: FollowedLaunch): LaunchedProcess {
    const handle = launch.platform.openProcess({ pid: launch.launcher.pid });
    if (handle.status().startTime !== launch.launcher.startTime) {
      handle.close();
      throw processGone(launch.launcher.pid);
    }
    return new LaunchedProcess(launch, handle);
  }

  isAlive(): boolean {
    return this.#handle.isAlive();
  }

  isRunning(): boolean {
    return this.#state === "running" && this.#program?.isCurrent() === true;
  }

  /** Whether the program with this exec generation is the one that has the identity, by the kernel's word at this moment. */
  hasIdentity(execGeneration: string | undefined): boolean {
    return execGeneration === this.#generation && this.isRunning() && this.isAlive();
  }

  /** One look at the process; looks asked for meanwhile share it. */
  check(): Promise<void> {
    this.#checking ??= this.#look().finally(() => {
      this.#checking = undefined;
    });
    return this.#checking;
  }

  /** Stops following. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#program?.close();
    this.#handle.close();
    this.#state = "gone";
  }

  #schedule(): void {
    if (this.#state === "gone") return;
    const fast = this.#state === "waiting" && performance.now() < this.#fastUntil;
    this.#timer = setTimeout(() => this.#poll(), fast ? FAST_POLL_MS : SLOW_POLL_MS);
    this.#timer.unref();
  }

  #poll(): void {
    void this.check().then(() => this.#schedule());
  }

  async #look(): Promise<void> {
    try {
      if (!this.#handle.isAlive()) this.#exited();
      else if (this.#state === "running") this.#lookForExec();
      else if (this.#state === "waiting") await this.#lookForProgram();
    } catch {
      // What cannot be read is not the pinned program; if the process is gone that is why, else the next look tells more.
      if (!this.#handle.isAlive()) this.#exited();
    }
  }

  #lookForExec(): void {
    if (this.#program?.isCurrent() === true) return;
    // An exiting process loses its memory a moment before it counts as exited: without a new generation the next look tells which it was.
    const generation = this.#handle.status().execGeneration;
    if (generation === undefined && !this.#unseen) {
      this.#unseen = true;
      return;
    }
    this.#state = "over";
    this.#launch.ended("exec", true);
  }

  async #lookForProgram(): Promise<void> {
    const { execGeneration } = this.#handle.status();
    if (execGeneration === undefined || execGeneration === this.#launch.launcher.execGeneration) return;
    if (execGeneration === this.#generation) return; // a shim that was looked at already
    const program = this.#handle.holdProgram();
    if (program === undefined) return;
    const pinned = await this.#isPinnedProgram();
    // Everything above was read of one program only if that program still runs now.
    if (!program.isCurrent()) {
      program.close();
      return;
    }
    this.#generation = execGeneration;
    if (!pinned || this.#handle.status().execGeneration !== execGeneration) {
      program.close();
      return;
    }
    this.#program = program;
    this.#state = "running";
    this.#launch.started();
  }

  async #isPinnedProgram(): Promise<boolean> {
    const { expected, digests } = this.#launch;
    if (!sameCommandLine(this.#handle.commandLine(), expected)) return false;
    const executable = this.#handle.openExecutable();
    if (executable === undefined) return false;
    try {
      return (await digests.digestOf(executable)) === expected.exeSha256;
    } finally {
      closeSync(executable.fd);
    }
  }

  #exited(): void {
    const state = this.#state;
    if (state === "gone") return;
    this.close();
    if (state !== "over") this.#launch.ended("exit", state === "running");
    this.#launch.gone();
  }
}

/**
 * The arguments after the first must be equal. The first is only a name that whoever executes chooses (`python`, `/usr/bin/python3`, what a shim
 * makes of it), but multi-call binaries go by it, so its base name must be that of the expected first argument or of the expected executable.
 */
export function sameCommandLine(found: readonly string[], expected: ExpectedProgram): boolean {
  if (found.length !== expected.argv.length) return false;
  if (!found.slice(1).every((argument, index) => argument === expected.argv[index + 1])) return false;
  const name = basename(found[0] ?? "");
  return name === basename(expected.argv[0] ?? "") || name === basename(expected.exePath);
}
