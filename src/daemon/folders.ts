import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CodedError } from "../coded-error.js";
import { openRuntimeDirectory, openStateDirectory } from "../platform/directories.js";
import { acquireFileLock, type FileLock } from "../platform/file-lock.js";
import type { Platform } from "../platform/platform.js";
import { endOrphans } from "./orphans.js";

/** Where one running trust domain keeps what it keeps. Held by kernel locks, so that a `kill -9` frees them. */
export interface Folders {
  /** For sockets; ours alone, and gone when the trust domain ends. */
  readonly runtime: string;
  /** `.agentid/`, or a folder inside `runtime` when nothing is to be kept. */
  readonly state: string;
  /** Written for whoever finds the lock taken. */
  announce(running: Announcement): void;
  /** Removes what must not stay, then lets go of the locks. */
  release(): void;
}

export interface Announcement {
  readonly pid: number;
  readonly workloadApi: string;
  readonly control: string;
}

export interface FoldersOptions {
  readonly projectDirectory: string;
  readonly ephemeral: boolean;
  /** Sockets of its own beside those of a trust domain that may be running for the same project (`agentid ci`). */
  readonly ownSockets: boolean;
  readonly environment: NodeJS.ProcessEnv;
  readonly platform: Platform;
}

const LOCK = "daemon.lock";
const OWN_PREFIX = "ci-";

/** Throws CodedError `already-running` with who holds it, and DirectoryError `directory-unsafe`. */
export function openFolders(options: FoldersOptions): Folders {
  const shared = openRuntimeDirectory(options.projectDirectory, options.environment);
  removeLeftovers(shared, options.platform);
  const runtime = options.ownSockets ? mkdtempSync(join(shared, OWN_PREFIX)) : shared;
  const locks = [lock(join(runtime, LOCK))];
  // The lock is ours, so whatever else lies here was left by one that was killed.
  endOrphans(runtime, options.platform);
  removeAllBut(runtime, (name) => name === LOCK || name.startsWith(OWN_PREFIX));
  try {
    const state = options.ephemeral ? join(runtime, "state") : openStateDirectory(options.projectDirectory);
    // Another runtime folder (another XDG_RUNTIME_DIR) must not lead two daemons to one state.
    if (!options.ephemeral) locks.push(lock(join(state, LOCK)));
    else {
      rmSync(state, { recursive: true, force: true });
      mkdirSync(state, { mode: 0o700 });
    }
    return {
      runtime,
      state,
      announce(running) {
        for (const folder of new Set([runtime, ...(options.ephemeral ? [] : [state])])) {
          writeFileSync(join(folder, LOCK), JSON.stringify(running), { mode: 0o600 });
        }
      },
      release() {
        if (options.ephemeral) rmSync(state, { recursive: true, force: true });
        removeAllBut(runtime, (name) => name.startsWith(OWN_PREFIX));
        if (!options.ephemeral) rmSync(join(state, LOCK), { force: true });
        for (const held of locks) held.release();
        removeIfEmpty(runtime);
        if (runtime !== shared) removeIfEmpty(shared);
      },
    };
  } catch (thrown) {
    for (const held of locks) held.release();
    throw thrown;
  }
}

function lock(path: string): FileLock {
  const held = acquireFileLock(path);
  if (held) return held;
  const running = readAnnouncement(path);
  throw new CodedError(
    "already-running",
    running === undefined
      ? "a trust domain is just starting for this project"
      : `a trust domain already runs for this project: pid ${running.pid}, Workload API ${running.workloadApi}`,
    { hint: "agentid dashboard shows it, agentid down stops it" },
  );
}

function readAnnouncement(path: string): Announcement | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Announcement;
  } catch {
    // Empty until the other one is ready.
    return undefined;
  }
}

/** Folders of ephemeral trust domains that were killed: nobody holds their lock any more. */
function removeLeftovers(shared: string, platform: Platform): void {
  for (const name of readdirSync(shared).filter((each) => each.startsWith(OWN_PREFIX))) {
    const folder = join(shared, name);
    const held = acquireFileLock(join(folder, LOCK));
    if (!held) continue;
    endOrphans(folder, platform);
    rmSync(folder, { recursive: true, force: true });
    held.release();
  }
}

function removeAllBut(folder: string, stays: (name: string) => boolean): void {
  for (const name of readdirSync(folder)) {
    if (!stays(name)) rmSync(join(folder, name), { recursive: true, force: true });
  }
}

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // Another trust domain's sockets are in it, or it is gone.
  }
}
