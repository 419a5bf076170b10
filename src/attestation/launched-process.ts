import { randomBytes } from "node:crypto";
import { closeSync, realpathSync } from "node:fs";
import { basename } from "node:path";
import { CodedError } from "../coded-error.js";
import type { HeldProgram, Platform, ProcessHandle } from "../platform/platform.js";
import { processGone } from "../platform/process-errors.js";
import type { ExecutableDigests } from "./hash-cache.js";
import { changedFile, driftedFile, type PinnedFile } from "./pinned-files.js";

/** A launch cannot be followed, or its instance lives already. */
export class LaunchError extends CodedError<"launch-unverifiable" | "instance-taken"> {
  override readonly name = "LaunchError";
}

/** What a launched process must become to have its identity. */
export interface ExpectedProgram {
  readonly exePath: string;
  /** Lower-case hex. */
  readonly exeSha256: string;
  /** The command line as it will stand in the end; `expectedProgram` of pinning.ts computes it for scripts. */
  readonly argv: readonly string[];
  /** Absolute. Relative arguments are files below it. */
  readonly workingDirectory: string;
  /** The scripts and other files of the launch. While the identity lasts, none of them changes. */
  readonly files: readonly PinnedFile[];
  /**
   * True only for a launch that agentid itself puts into other mounts and another user namespace; everybody else's are no proof of what a path leads to.
   */
  readonly otherMounts?: boolean;
}

/** The launch that gives a process its identity. */
export interface GrantedLaunch {
  /** Name of the entry: `agents/billing`. */
  readonly name: string;
  /** The last segment of `agents/billing/INSTANCE`; undefined for a launch as the entry itself. */
  readonly instance: string | undefined;
  /** SPIFFE IDs of the agents that launched it, nearest first; empty where no agent did. */
  readonly launchedBy: readonly string[];
}

/** The path of the launch's SPIFFE ID: `agents/billing` or `agents/billing/INSTANCE`. */
export function launchedName({ name, instance }: GrantedLaunch): string {
  return instance === undefined ? name : `${name}/${instance}`;
}

/**
 * Why an identity ended. `files`: one of the launch's files is not what was pinned any more. `withdrawn`: its grant could not be recorded. `replaced`: the
 * launcher has asked for another launch.
 */
export type LaunchEnd = "exit" | "exec" | "files" | "withdrawn" | "replaced";

export interface FollowedLaunch {
  readonly platform: Platform;
  readonly digests: ExecutableDigests;
  readonly launcher: { readonly pid: number; readonly startTime: bigint; readonly execGeneration: string };
  readonly granted: GrantedLaunch;
  /** Whether somebody will ask which processes descend from this one. */
  readonly descendants: boolean;
  readonly expected: ExpectedProgram;
  readonly started: () => void;
  /** Once: the identity has ended, or can no longer begin; `file` is the one that changed. */
  readonly ended: (why: LaunchEnd, started: boolean, file?: string) => void;
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
  readonly granted: GrantedLaunch;
  readonly pid: number;
  readonly startTime: bigint;
  /** Tells it from every other launch, also from the next one of the same name. */
  readonly id = randomBytes(12).toString("base64url");
  readonly #launch: FollowedLaunch;
  readonly #handle: ProcessHandle;
  #state: "waiting" | "running" | "over" | "gone" = "waiting";
  /** The generation looked at last; the running one while `running`. */
  #generation: string;
  #program: HeldProgram | undefined;
  /**
   * The launcher, then the last shim: looked at and not pinned. A program can change its generation (prctl PR_SET_MM_MAP) and its command line, but only
   * an exec takes it away, so what was judged once is not judged again.
   */
  #judged: HeldProgram | undefined;
  /** The program was lost and no other was seen yet. */
  #unseen = false;
  /** The program was seen without a child: whatever descends from it since then was started by it. */
  #wasAlone = false;
  #checking: Promise<void> | undefined;
  #nextCheck: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #fastUntil = performance.now() + FAST_FOR_MS;
  /** Of a sandboxed launch: the user namespace in which it was granted. */
  readonly #userNamespace: string | undefined;

  private constructor(launch: FollowedLaunch, handle: ProcessHandle, userNamespace: string | undefined) {
    this.#userNamespace = userNamespace;
    this.#launch = launch;
    this.#handle = handle;
    this.granted = launch.granted;
    this.pid = launch.launcher.pid;
    this.startTime = launch.launcher.startTime;
    this.#generation = launch.launcher.execGeneration;
    this.#judged = handle.holdProgram();
    this.#schedule();
  }

  /** Throws ProcessError `process-gone` when the launcher is no more, LaunchError when it has executed something since it was attested. */
  static follow(launch: FollowedLaunch): LaunchedProcess {
    const { pid, startTime, execGeneration } = launch.launcher;
    const handle = launch.platform.openProcess({ pid });
    try {
      const userNamespace =
        launch.expected.otherMounts === true ? launch.platform.confinementOf(pid).userNamespace : undefined;
      const status = handle.status();
      if (status.startTime !== startTime) throw processGone(pid);
      if (status.execGeneration !== execGeneration) {
        throw new LaunchError(
          "launch-unverifiable",
          `process ${pid} is not the program any more that asked for the launch`,
        );
      }
      return new LaunchedProcess(launch, handle, userNamespace);
    } catch (thrown) {
      handle.close();
      throw thrown;
    }
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

  /** False once the identity has ended, or can no longer begin. */
  mayHaveIdentity(): boolean {
    return (this.#state === "waiting" || this.#state === "running") && this.isAlive();
  }

  get wantsDescendants(): boolean {
    return this.#launch.descendants;
  }

  /** Whether the program runs and all that descends from it now was started by it, not by what the process was before. */
  vouchesForDescendants(): boolean {
    if (!this.#launch.descendants || !this.isRunning()) return false;
    if (!this.#wasAlone) this.#lookForSolitude();
    return this.#wasAlone;
  }

  /** A look at the process that begins now or later: one that is under way may have begun before what the caller knows of it. */
  check(): Promise<void> {
    if (this.#checking === undefined) return this.#startLook();
    this.#nextCheck ??= this.#checking.then(() => this.#checking ?? this.#startLook());
    return this.#nextCheck;
  }

  #startLook(): Promise<void> {
    this.#nextCheck = undefined;
    this.#checking = this.#look().finally(() => {
      this.#checking = undefined;
    });
    return this.#checking;
  }

  /** Ends the identity for ever, or keeps it from beginning; the process is followed to its exit all the same. */
  end(why: "withdrawn" | "replaced"): void {
    if (this.#state === "waiting" || this.#state === "running") this.#end(why, this.#state === "running");
  }

  /** Ends now what the next look would find ended by an exit. */
  noticeExit(): void {
    if (!this.#handle.isAlive()) this.#exited();
  }

  /** Stops following. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#program?.close();
    this.#judged?.close();
    this.#handle.close();
    this.#state = "gone";
  }

  #schedule(): void {
    if (this.#state === "gone") return;
    const hurries = this.#state === "waiting" || (this.#state === "running" && this.#watchesForSolitude());
    const fast = hurries && performance.now() < this.#fastUntil;
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

  #watchesForSolitude(): boolean {
    return this.#launch.descendants && !this.#wasAlone;
  }

  /**
   * A shim may have started processes before it became the program, and nothing that the kernel shows tells those (or what they start with
   * CLONE_PARENT) from the program's own children. Once the program has no child, there are none left.
   */
  #lookForSolitude(): void {
    if (this.#isAlone() && this.isRunning()) this.#wasAlone = true;
  }

  #isAlone(): boolean {
    return this.#launch.descendants && this.#handle.childPids()?.length === 0;
  }

  #lookForExec(): void {
    if (this.#program?.isCurrent() === true) {
      if (this.#watchesForSolitude()) this.#lookForSolitude();
      const changed = changedFile(this.#launch.expected.files);
      if (changed !== undefined) this.#end("files", true, changed);
      return;
    }
    // An exiting process loses its memory a moment before it counts as exited: without a new generation the next look tells which it was.
    const generation = this.#handle.status().execGeneration;
    if (generation === undefined && !this.#unseen) {
      this.#unseen = true;
      return;
    }
    this.#end("exec", true);
  }

  #end(why: LaunchEnd, started: boolean, file?: string): void {
    this.#state = "over";
    this.#launch.ended(why, started, file);
  }

  async #lookForProgram(): Promise<void> {
    const { execGeneration } = this.#handle.status();
    if (execGeneration === undefined || execGeneration === this.#launch.launcher.execGeneration) return;
    if (execGeneration === this.#generation || this.#judged?.isCurrent() === true) return; // looked at already
    const program = this.#handle.holdProgram();
    if (program === undefined) return;
    // Before the digest is made, which takes longer than some programs take to their first child.
    const alone = this.#isAlone();
    const pinned = await this.#isPinnedProgram();
    const drifted = pinned ? await driftedFile(this.#launch.expected.files) : undefined;
    // Everything above was read of one program only if that program still runs now.
    // Meanwhile the launch may have been withdrawn, or followed no longer.
    if (!program.isCurrent() || this.#state !== "waiting") {
      program.close();
      return;
    }
    this.#generation = execGeneration;
    if (!pinned || this.#handle.status().execGeneration !== execGeneration) {
      this.#judged?.close();
      this.#judged = program;
      return;
    }
    if (drifted !== undefined) {
      program.close();
      this.#end("files", false, drifted);
      return;
    }
    this.#program = program;
    this.#state = "running";
    this.#wasAlone = alone;
    this.#launch.started();
  }

  async #isPinnedProgram(): Promise<boolean> {
    const { expected, digests } = this.#launch;
    if (!sameCommandLine(this.#handle.commandLine(), expected)) return false;
    if (!this.#seesPinnedFiles()) return false;
    const executable = this.#handle.openExecutable();
    if (executable === undefined) return false;
    try {
      return (await digests.digestOf(executable)) === expected.exeSha256;
    } finally {
      closeSync(executable.fd);
    }
  }

  /** A path is a pinned file only from where the digests were made: in the launch's folder, and among our mounts, or where it leads to the same file. */
  #seesPinnedFiles(): boolean {
    const { workingDirectory, otherMounts } = this.#launch.expected;
    if (otherMounts === true ? !this.#isStillShutIn() : !this.#handle.seesOurFiles()) return false;
    const found = this.#handle.workingDirectory();
    return found === undefined || found === realpathSync(workingDirectory);
  }

  /**
   * In the sandbox that agentid has looked at: who has no capability in his user namespace, and enters no other, cannot have the kernel name another file
   * as his executable.
   */
  #isStillShutIn(): boolean {
    const { platform, expected } = this.#launch;
    const { userNamespace, powerless, sees } = platform.confinementOf(this.pid);
    return userNamespace === this.#userNamespace && powerless && expected.files.every(({ path }) => sees(path));
  }

  #exited(): void {
    const state = this.#state;
    if (state === "gone") return;
    this.close();
    try {
      if (state !== "over") this.#launch.ended("exit", state === "running");
    } finally {
      this.#launch.gone();
    }
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
