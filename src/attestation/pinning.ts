import { statSync } from "node:fs";
import { relative, resolve } from "node:path";
import { type Command, type FinalProgram, resolveCommand } from "./executable-resolution.js";
import { sha256OfFile } from "./file-digest.js";
import type { ExpectedProgram } from "./launched-process.js";
import { markOf, type PinnedFile } from "./pinned-files.js";

/** What a launch may execute: the digests that `agentid.lock` keeps of it (the lock's `LockedIdentity`). */
export interface PinnedLaunch {
  readonly exe: { readonly path: string; readonly sha256: string };
  /** Path relative to the launch's working directory → lower-case hex SHA-256. */
  readonly files: Readonly<Record<string, string>>;
}

/** One thing that is not as it was pinned; for the refusal's message and the record. */
export interface PinDifference {
  /** `exe` or a file's path relative to the working directory. */
  readonly what: string;
  /** Pinned digest (for `exe` behind its path); undefined when nothing was pinned. */
  readonly pinned: string | undefined;
  /** Digest now; undefined when it is not there any more. */
  readonly found: string | undefined;
}

/**
 * Digests of everything a launch consists of now: the executable that runs in the end, each argument that is an existing regular file relative to the
 * working directory, and the scripts that are executed through their first line. Never from a cache (D6). Throws CommandError.
 */
export async function pinLaunch(command: Command): Promise<PinnedLaunch> {
  const program = await resolveCommand(command);
  const path = await program.exePath();
  const exe = { path, sha256: await sha256OfFile(path) };
  const files: Record<string, string> = {};
  for (const file of filesOf(command, program)) {
    files[relative(command.workingDirectory, file)] = await sha256OfFile(file);
  }
  return { exe, files };
}

/** What differs between what was pinned and what is there now; empty when nothing does. */
export function compareWithLock(pinned: PinnedLaunch, now: PinnedLaunch): readonly PinDifference[] {
  const differences: PinDifference[] = [];
  if (pinned.exe.sha256 !== now.exe.sha256 || pinned.exe.path !== now.exe.path) {
    differences.push({
      what: "exe",
      pinned: `${pinned.exe.path} ${pinned.exe.sha256}`,
      found: `${now.exe.path} ${now.exe.sha256}`,
    });
  }
  for (const what of new Set([...Object.keys(pinned.files), ...Object.keys(now.files)])) {
    const before = Object.hasOwn(pinned.files, what) ? pinned.files[what] : undefined;
    const after = Object.hasOwn(now.files, what) ? now.files[what] : undefined;
    if (before !== after) differences.push({ what, pinned: before, found: after });
  }
  return differences;
}

/** A difference in one line: `agents/billing.py: pinned 3f2a… is now 9c1e…`. */
export function describeDifference({ what, pinned, found }: PinDifference): string {
  if (pinned === undefined) return `${what}: not pinned, is now ${found}`;
  if (found === undefined) return `${what}: pinned ${pinned}, is not there now`;
  return `${what}: pinned ${pinned}, is now ${found}`;
}

/** What the launched process must become, for `LaunchRegistry.begin`: the pinned executable with the command line that scripts and `env` make of it. */
export async function expectedProgram(
  command: Command,
  pinned: PinnedLaunch,
  files: readonly PinnedFile[],
): Promise<ExpectedProgram> {
  const { argv } = await resolveCommand(command);
  const { workingDirectory } = command;
  return { exePath: pinned.exe.path, exeSha256: pinned.exe.sha256, argv, workingDirectory, files };
}

/** The pinned files as they are now, to be marked before `pinLaunch`. One that cannot be marked is not there, and the comparison says so. */
export function markFiles({ files }: PinnedLaunch, workingDirectory: string): readonly PinnedFile[] {
  return Object.entries(files).flatMap(([file, sha256]) => {
    const path = resolve(workingDirectory, file);
    const mark = markOf(path);
    return mark === undefined ? [] : [{ path, sha256, mark }];
  });
}

function filesOf(command: Command, program: FinalProgram): ReadonlySet<string> {
  const named = command.argv.slice(1).map((argument) => resolve(command.workingDirectory, argument));
  return new Set([...program.scripts, ...named].filter(isFile));
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
