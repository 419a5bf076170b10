import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../coded-error.js";
import type { Platform } from "../platform/platform.js";

/** The processes that a daemon started, written down beside its sockets, so that after `kill -9` the next one can end them. */

interface Written {
  readonly pid: number;
  readonly startTime: string;
}

const FILE = "services.json";

/** Writes down which children run now. */
export function writeChildren(runtimeDirectory: string, pids: readonly number[], platform: Platform): void {
  const children: Written[] = pids.flatMap((pid) => {
    const startTime = startTimeOf(pid, platform);
    return startTime === undefined ? [] : [{ pid, startTime }];
  });
  writeFileSync(join(runtimeDirectory, FILE), JSON.stringify(children), { mode: 0o600 });
}

/** Ends, with their groups, those children of a killed daemon that are still the processes it wrote down. */
export function endOrphans(runtimeDirectory: string, platform: Platform): void {
  const file = join(runtimeDirectory, FILE);
  for (const { pid, startTime } of readChildren(file)) {
    if (startTimeOf(pid, platform) === startTime) signalGroup(pid, "SIGKILL");
  }
  rmSync(file, { force: true });
}

/** Signals a process group; one that is gone already is no error. */
export function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (thrown) {
    if (codeOf(thrown) !== "ESRCH") throw thrown;
  }
}

function readChildren(file: string): readonly Written[] {
  try {
    return JSON.parse(readFileSync(file, "utf8")) as Written[];
  } catch {
    // None: the last daemon ended in order. Torn: it was killed while writing, and there is nothing to learn from it.
    return [];
  }
}

function startTimeOf(pid: number, platform: Platform): string | undefined {
  try {
    const handle = platform.openProcess({ pid });
    try {
      return handle.status().startTime.toString();
    } finally {
      handle.close();
    }
  } catch {
    // The process is gone, which is an answer.
    return undefined;
  }
}
