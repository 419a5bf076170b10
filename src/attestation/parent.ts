import { messageOf } from "../coded-error.js";
import type { HeldProgram, Platform, ProcessHandle } from "../platform/platform.js";
import { executableOf } from "./executable.js";
import type { ExecutableDigests } from "./hash-cache.js";

/** The process that another one has as its parent, held as its child is. */
export interface HeldParent {
  readonly exePath: string | undefined;
  readonly exeSha256: string | undefined;
  readonly missing: { readonly exePath?: string; readonly exeSha256?: string };
  /** True while it is the parent of a process whose parent now is `parentPid`, and has executed nothing else. */
  isStillParent(parentPid: number): boolean;
  close(): void;
}

/** Throws CodedError where the parent cannot be held, or the child has another one by the time it is. */
export async function attestParent(
  platform: Platform,
  digests: ExecutableDigests,
  child: ProcessHandle,
): Promise<HeldParent> {
  const pid = child.status().parentPid;
  const handle = platform.openProcess({ pid });
  let program: HeldProgram | undefined;
  try {
    program = handle.holdProgram();
    if (program === undefined) throw new Error("the kernel does not let us see what it executes");
    // Held first, compared then: a number that was used again in between is not the child's parent any more.
    if (child.status().parentPid !== pid) throw new Error("its parent exited meanwhile");
    const { path, sha256, missing } = await executableOf(handle, digests);
    const parent = new Parent(handle, program, { exePath: path, exeSha256: sha256, missing });
    if (!parent.isStillParent(child.status().parentPid)) throw new Error("its parent exited or changed meanwhile");
    return parent;
  } catch (thrown) {
    program?.close();
    handle.close();
    throw thrown;
  }
}

class Parent implements HeldParent {
  readonly exePath: string | undefined;
  readonly exeSha256: string | undefined;
  readonly missing: HeldParent["missing"];
  readonly #handle: ProcessHandle;
  readonly #program: HeldProgram;

  constructor(
    handle: ProcessHandle,
    program: HeldProgram,
    facts: Pick<HeldParent, "exePath" | "exeSha256" | "missing">,
  ) {
    this.#handle = handle;
    this.#program = program;
    this.exePath = facts.exePath;
    this.exeSha256 = facts.exeSha256;
    this.missing = facts.missing;
  }

  isStillParent(parentPid: number): boolean {
    return parentPid === this.#handle.pid && this.#handle.isAlive() && this.#program.isCurrent();
  }

  close(): void {
    this.#program.close();
    this.#handle.close();
  }
}

/** Why there is no parent, for people. */
export function noParent(thrown: unknown): string {
  return `the parent process cannot be attested: ${messageOf(thrown)}`;
}
