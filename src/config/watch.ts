import { basename, dirname, relative, resolve, sep } from "node:path";
import { type FSWatcher, watch as watchFiles } from "chokidar";
import { type Clock, systemClock } from "../platform/clock.js";
import { CONFIG_FILE_NAME, ENTITIES_FILE_NAME, LOCK_FILE_NAME } from "./load.js";

interface WatchedProject {
  readonly projectDirectory: string;
  readonly policiesDirectory: string;
}

export interface ProjectWatchOptions {
  readonly config: WatchedProject;
  /**
   * Called with the absolute paths that were saved, created or removed, once for everything saved together. Never called again before
   * the last call has settled; what happens meanwhile makes one more call.
   */
  readonly onChange: (files: readonly string[]) => void | Promise<void>;
  /** What the operating system or `onChange` reported; the watch goes on. */
  readonly onError: (error: unknown) => void;
  readonly clock?: Clock;
}

export interface ProjectWatch {
  /** Changes from here on are seen; load the project after that. */
  readonly ready: Promise<void>;
  /** Watches another policies folder, after a reload that names one. Resolves when its changes are seen; load it after that. */
  update(config: WatchedProject): Promise<void>;
  /** No call of `onChange` begins after this resolves; a running one has ended. */
  close(): Promise<void>;
}

/** Editors write several files, or one file in several steps, within this time. */
const QUIET_MS = 80;
/** A program that never stops writing must not keep a change from taking effect. */
const LONGEST_DELAY_MS = 2000;

/**
 * Watches `agentid.yaml`, `agentid.lock`, `entities.yaml` and the policies folder: also files that are replaced by renaming (most editors), that do not exist
 * yet, and a policies folder that appears later. Temporary files of editors are not seen.
 */
export function watchProject(options: ProjectWatchOptions): ProjectWatch {
  const clock = options.clock ?? systemClock;
  const watchers = new Set<FSWatcher>();
  const changed = new Set<string>();
  let waitingSince: number | undefined;
  let cancelTimer: (() => void) | undefined;
  let running: Promise<void> | undefined;
  let closed = false;

  /** Resolves when changes are seen; never, if `close` comes first. */
  function observe(observed: WatchedProject): Promise<void> {
    // The folder is watched, not the files: a file that is replaced by renaming is another file.
    const watcher = watchFiles(rootsOf(observed), {
      ignored: (path, stats) => !isObserved(observed, path, stats?.isFile()),
      ignoreInitial: true,
      followSymlinks: true,
      atomic: false,
    });
    watcher.on("error", (error) => options.onError(error));
    watcher.on("all", (event, path) => {
      // A folder that comes or goes does so with its files, and those are reported.
      if (event === "addDir" || event === "unlinkDir") return;
      const file = resolve(path);
      if (!isProjectFile(observed, file) && !isPolicyFile(basename(file))) return;
      changed.add(file);
      schedule();
    });
    watchers.add(watcher);
    return new Promise((resolveReady) => watcher.once("ready", () => resolveReady()));
  }

  function schedule(): void {
    if (closed) return;
    const now = clock.now();
    waitingSince ??= now;
    cancelTimer?.();
    cancelTimer = clock.after(Math.max(0, Math.min(QUIET_MS, waitingSince + LONGEST_DELAY_MS - now)), flush);
  }

  function flush(): void {
    cancelTimer = undefined;
    // The call that runs looks for what has come meanwhile when it ends.
    if (running !== undefined || closed || changed.size === 0) return;
    waitingSince = undefined;
    const files = [...changed].sort();
    changed.clear();
    running = Promise.resolve(files)
      .then(options.onChange)
      .catch(options.onError)
      .finally(() => {
        running = undefined;
        if (changed.size > 0) schedule();
      });
  }

  async function stop(watcher: FSWatcher): Promise<void> {
    watchers.delete(watcher);
    await watcher.close();
  }

  return {
    ready: observe(options.config),
    async update(next) {
      const before = [...watchers];
      // Both watch until the new one is ready, so that nothing falls between them; twice the same file is one change.
      await observe(next);
      await Promise.all(before.map(stop));
    },
    async close() {
      closed = true;
      cancelTimer?.();
      await Promise.all([...watchers].map(stop));
      await running;
    },
  };
}

/** The project's folder; a policies folder outside of it is a root of its own. */
function rootsOf(config: WatchedProject): string[] {
  return isWithin(config.projectDirectory, config.policiesDirectory)
    ? [config.projectDirectory]
    : [config.projectDirectory, config.policiesDirectory];
}

/** What the file system is asked about. `isFile` is undefined where that is not known yet. */
function isObserved(config: WatchedProject, path: string, isFile: boolean | undefined): boolean {
  const absolute = resolve(path);
  const { projectDirectory, policiesDirectory } = config;
  // The folders from the project down to the policies, so that these are seen to appear.
  if (absolute === projectDirectory || isWithin(absolute, policiesDirectory)) return true;
  if (isProjectFile(config, absolute)) return true;
  if (!isWithin(policiesDirectory, absolute)) return false;
  const hidden = relative(policiesDirectory, absolute)
    .split(sep)
    .some((step) => step.startsWith("."));
  return !hidden && (isFile !== true || isPolicyFile(basename(absolute)));
}

function isProjectFile(config: WatchedProject, path: string): boolean {
  return (
    dirname(path) === config.projectDirectory &&
    [CONFIG_FILE_NAME, LOCK_FILE_NAME, ENTITIES_FILE_NAME].includes(basename(path))
  );
}

/** Not `.payments.yaml.swp`, `payments.yaml~`, `#payments.yaml#`, `4913`. */
function isPolicyFile(name: string): boolean {
  return /^[^.#].*\.ya?ml$/.test(name);
}

/** True for the folder itself too. */
function isWithin(folder: string, path: string): boolean {
  const steps = relative(folder, path);
  return steps === "" || (steps !== ".." && !steps.startsWith(`..${sep}`) && !steps.startsWith(sep));
}
