import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { KnownAgent } from "../attestation/launches.js";
import { bootId } from "../platform/boot-id.js";

/** The agents of earlier daemons in this boot: without identity now, and still not administrators (D25). */
export interface KnownAgents {
  readonly agents: readonly KnownAgent[];
  /** Processes that adopt what agents orphan. */
  readonly adopters: readonly KnownAgent[];
  readonly firstLaunchStartTime: bigint | undefined;
}

interface Stored {
  readonly boot: string;
  readonly firstLaunchStartTime: string | undefined;
  readonly agents: readonly StoredProcess[];
  /** Undefined in a file of an earlier version. */
  readonly adopters: readonly StoredProcess[] | undefined;
}

interface StoredProcess {
  readonly pid: number;
  readonly startTime: string;
}

const FILE = "agents.json";

/** Nothing, where there is no file, it is torn, or it is of an earlier boot: then none of those processes lives. */
export function readKnownAgents(stateDirectory: string): KnownAgents {
  try {
    const stored = JSON.parse(readFileSync(join(stateDirectory, FILE), "utf8")) as Stored;
    if (stored.boot === bootId()) {
      return {
        agents: stored.agents.map(fromStored),
        adopters: (stored.adopters ?? []).map(fromStored),
        firstLaunchStartTime:
          stored.firstLaunchStartTime === undefined ? undefined : BigInt(stored.firstLaunchStartTime),
      };
    }
  } catch {
    // First start in this project.
  }
  return { agents: [], adopters: [], firstLaunchStartTime: undefined };
}

/** Written before a launch is granted, so that no agent is forgotten by a `kill -9`. */
export function writeKnownAgents(stateDirectory: string, known: KnownAgents): void {
  const stored: Stored = {
    boot: bootId(),
    firstLaunchStartTime: known.firstLaunchStartTime?.toString(),
    agents: known.agents.map(toStored),
    adopters: known.adopters.map(toStored),
  };
  const file = join(stateDirectory, FILE);
  writeFileSync(`${file}.new`, JSON.stringify(stored), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

function fromStored({ pid, startTime }: StoredProcess): KnownAgent {
  return { pid, startTime: BigInt(startTime) };
}

function toStored({ pid, startTime }: KnownAgent): StoredProcess {
  return { pid, startTime: startTime.toString() };
}
