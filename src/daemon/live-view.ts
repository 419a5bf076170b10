import type { LaunchRegistry } from "../attestation/launches.js";
import { type AgentidEvent, subjectOfProblem } from "../control-api/events.js";
import type { Platform } from "../platform/platform.js";

/** What the events so far add up to: counts, problems that are not over, processes seen with an identity. */
export interface LiveView {
  take(event: AgentidEvent): void;
  /** A process was attested and these identities follow for it. */
  seen(pid: number, startTime: bigint, identities: readonly string[]): void;
  pidsOf(identity: string): readonly number[];
  readonly problems: readonly Problem[];
  readonly counts: { readonly calls: number; readonly denied: number };
}

interface Problem {
  readonly severity: "warning" | "error";
  readonly code: string;
  readonly message: string;
}

const MAX_PROBLEMS = 100;
const MAX_PROCESSES = 2_000;

export function createLiveView(platform: Platform, launches: LaunchRegistry): LiveView {
  const problems = new Map<string, Problem>();
  const processes = new Map<number, { startTime: bigint; identities: readonly string[] }>();
  let calls = 0;
  let denied = 0;

  function isAlive(pid: number, startTime: bigint): boolean {
    try {
      const handle = platform.openProcess({ pid });
      try {
        return handle.status().startTime === startTime;
      } finally {
        handle.close();
      }
    } catch {
      // Gone: the answer is no.
      return false;
    }
  }

  return {
    take(event) {
      if (event.event === "call") {
        calls += 1;
        if (event.verdict === "DENY") denied += 1;
      }
      if (event.event !== "problem") return;
      const key = subjectOfProblem(event);
      problems.delete(key);
      if (event.resolved) return;
      const { severity, code, message } = event;
      problems.set(key, { severity, code, message });
      if (problems.size > MAX_PROBLEMS) problems.delete([...problems.keys()][0] ?? key);
    },
    seen(pid, startTime, identities) {
      processes.delete(pid);
      processes.set(pid, { startTime, identities });
      if (processes.size > MAX_PROCESSES) processes.delete([...processes.keys()][0] ?? pid);
    },
    pidsOf(identity) {
      const pids = new Set(launches.runningPids(identity));
      for (const [pid, { startTime, identities }] of processes) {
        if (!identities.includes(identity)) continue;
        if (isAlive(pid, startTime)) pids.add(pid);
        else processes.delete(pid);
      }
      return [...pids];
    },
    get problems() {
      return [...problems.values()];
    },
    get counts() {
      return { calls, denied };
    },
  };
}
