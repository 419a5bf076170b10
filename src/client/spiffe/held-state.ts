import type { Clock } from "../../platform/clock.js";
import type { WatchListener } from "./watched-stream.js";
import { aborted } from "./workload-api-client.js";
import { WorkloadApiError } from "./workload-api-error.js";

/** What a watch has brought last, and who wants to know of changes. */
export interface HeldState<Update> {
  /** Undefined before the first update, and once the server has withdrawn everything. */
  readonly current: Update | undefined;
  /** What went wrong last and has not passed yet. */
  readonly problem: WorkloadApiError | undefined;
  /** To give to the watch. */
  readonly listener: WatchListener<Update>;
  onUpdate(listener: () => void): () => void;
  onProblem(listener: (problem: WorkloadApiError) => void): () => void;
  /** Resolves with the first update. Rejects when `signal` aborts, after `timeoutMs`, or when the watch ends for good. */
  first(options: { signal?: AbortSignal | undefined; timeoutMs: number; clock: Clock }): Promise<void>;
}

export function createHeldState<Update>(): HeldState<Update> {
  let current: Update | undefined;
  let problem: WorkloadApiError | undefined;
  let ended = false;
  const updated = new Set<() => void>();
  const troubled = new Set<(problem: WorkloadApiError) => void>();

  function set(update: Update | undefined): void {
    current = update;
    for (const listener of [...updated]) listener();
  }

  function fail(found: WorkloadApiError): void {
    problem = found;
    // Workload API §5.2.1: "if the server redacts … all SVIDs, i.e., returns a PermissionDenied …, the client SHOULD cease using the redacted SVIDs".
    if (found.code === "workload-api-permission-denied" && current !== undefined) set(undefined);
    for (const listener of [...troubled]) listener(found);
  }

  function subscribe<Listener>(listeners: Set<Listener>, listener: Listener): () => void {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  return {
    get current() {
      return current;
    },
    get problem() {
      return problem;
    },
    listener: {
      onUpdate(update) {
        problem = undefined;
        set(update);
      },
      // A discarded message or a lost stream leaves what was known.
      onProblem: (found) => fail(found),
      onEnd(error) {
        ended = true;
        fail(error);
      },
    },
    onUpdate: (listener) => subscribe(updated, listener),
    onProblem: (listener) => subscribe(troubled, listener),
    first({ signal, timeoutMs, clock }) {
      return new Promise((resolve, reject) => {
        const check = () => {
          if (current !== undefined) settle(resolve);
          else if (ended && problem !== undefined) settle(() => reject(problem));
        };
        const abort = () => settle(() => reject(aborted(signal)));
        const cancelTimeout = clock.after(timeoutMs, () => settle(() => reject(problem ?? tooLate(timeoutMs))));
        const forget = [subscribe(updated, check), subscribe(troubled, check)];
        const settle = (outcome: () => void) => {
          cancelTimeout();
          signal?.removeEventListener("abort", abort);
          for (const one of forget) one();
          outcome();
        };
        signal?.addEventListener("abort", abort, { once: true });
        if (signal?.aborted === true) abort();
        else check();
      });
    },
  };
}

function tooLate(timeoutMs: number): WorkloadApiError {
  return new WorkloadApiError(
    "workload-api-deadline-exceeded",
    `the Workload API did not answer within ${timeoutMs / 1000} s`,
  );
}
