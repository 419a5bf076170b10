import type { AuditLog } from "../audit/audit-log.js";
import { CodedError, codeOf, messageOf } from "../coded-error.js";
import { engineFiles } from "../config/policy-schema.js";
import { type ReloadState, reloadStarted, reloadTransition } from "../config/reload.js";
import { watchProject } from "../config/watch.js";
import type { AgentidEvent } from "../control-api/events.js";
import type { Clock } from "../platform/clock.js";
import type { EventBus } from "./event-bus.js";
import { compareProjects, type Project } from "./project.js";

export type ReloadEvent = Extract<AgentidEvent, { event: "reload" }>;

/** Follows the project's files: what is saved takes effect, waits for the user, or is refused as broken (D13). */
export interface ProjectReload {
  readonly current: Project;
  /** The change that waits for the user. */
  readonly pending: ReloadEvent | undefined;
  /** Throws CodedError `no-pending-reload` or `reload-changed`. */
  accept(sequence: number | undefined): Promise<ReloadEvent>;
  refuse(sequence: number | undefined): ReloadEvent;
  /** Loads and compares now, as after a save; for changes that agentid itself makes. */
  reloadNow(options: { accepted: boolean }): Promise<ReloadEvent | undefined>;
  /** Resolves when no save can be missed any more. */
  readonly ready: Promise<void>;
  close(): Promise<void>;
}

export interface ProjectReloadOptions {
  readonly first: Project;
  readonly load: () => Promise<Project>;
  /** Puts a project in force. Called one at a time; if it throws, the change counts as broken and `first` or the last good one stays. */
  readonly apply: (next: Project) => Promise<void>;
  readonly audit: AuditLog;
  readonly bus: EventBus;
  readonly clock: Clock;
  /** False: nothing is watched (no project file). */
  readonly watch: boolean;
}

export function followProject(options: ProjectReloadOptions): ProjectReload {
  const { audit, bus } = options;
  let state: ReloadState<Project> = reloadStarted(options.first);
  let pending: ReloadEvent | undefined;
  // Saves, acceptances and refusals are handled one at a time, in the order in which they came.
  let last: Promise<unknown> = Promise.resolve();
  const watch = options.watch
    ? watchProject({
        config: options.first.config,
        clock: options.clock,
        onChange: async () => {
          await inTurn(() => saved({ accepted: false }));
        },
        onError: (error) =>
          bus.emit({ event: "problem", severity: "error", code: "watch-failed", message: messageOf(error) }),
      })
    : undefined;

  function inTurn<Result>(step: () => Promise<Result>): Promise<Result> {
    const turn = last.then(step);
    last = turn.catch(() => undefined);
    return turn;
  }

  async function saved({ accepted }: { accepted: boolean }): Promise<ReloadEvent | undefined> {
    let next: Project;
    try {
      next = await options.load();
    } catch (thrown) {
      return broken(thrown);
    }
    const { widened, changes } = compareProjects(state.current, next);
    const wasFailed = state.kind === "failed";
    if (changes.length === 0 && next.policyDigest === state.current.policyDigest && state.kind === "current") {
      return undefined;
    }
    const after = reloadTransition(state, {
      kind: "saved-good",
      next,
      widened: widened && !accepted,
      changes,
      revision: bus.next,
    });
    if (wasFailed) bus.emit({ event: "problem", ...BROKEN, message: "the files are valid again", resolved: true });
    if (after.kind === "waiting") {
      record("reload.waiting", next, widened, changes);
      state = after;
      pending = emit("waiting", next, widened, changes);
      // The acceptance names the event that the user saw.
      state = { ...after, revision: pending.sequence };
      return pending;
    }
    return putInForce(next, "reload", widened, changes);
  }

  function broken(thrown: unknown): ReloadEvent {
    const error = thrown instanceof Error ? thrown : new Error(messageOf(thrown));
    state = reloadTransition(state, { kind: "saved-broken", error });
    pending = undefined;
    audit.append("reload.refused", { error: error.message, code: codeOf(error) });
    bus.emit({ event: "problem", ...BROKEN, message: `the last good state stays in force: ${error.message}` });
    return emit("failed", state.current, false, [], error.message);
  }

  async function putInForce(
    next: Project,
    kind: "reload" | "reload.accepted",
    widened: boolean,
    changes: readonly string[],
  ): Promise<ReloadEvent> {
    // Recorded before it holds: what cannot be recorded does not happen (D20).
    record(kind, next, widened, changes);
    try {
      await options.apply(next);
    } catch (thrown) {
      return broken(thrown);
    }
    const followed = ({ config }: Project) => [config.policiesDirectory, ...engineFiles(config.policy)].join("\n");
    const moved = followed(next) !== followed(state.current);
    tellWarnings(state.current.warnings, next.warnings);
    state = { kind: "current", current: next };
    pending = undefined;
    // What was saved in the new folder before it was watched is looked at once it is.
    if (moved) void watch?.update(next.config).then(() => inTurn(() => saved({ accepted: false })));
    return emit("applied", next, widened, changes);
  }

  /** Those that are new, and those that are over. */
  function tellWarnings(before: readonly string[], after: readonly string[]): void {
    const warn = (message: string) =>
      ({ event: "problem", severity: "warning", code: "policy-warning", message }) as const;
    for (const each of before.filter((one) => !after.includes(one))) bus.emit({ ...warn(each), resolved: true });
    for (const each of after.filter((one) => !before.includes(one))) bus.emit(warn(each));
  }

  function record(
    kind: "reload" | "reload.waiting" | "reload.accepted",
    next: Project,
    widened: boolean,
    changes: readonly string[],
  ): void {
    audit.append(kind, { widened, changes, config: next.config.digest, policy: next.policyDigest }, { sync: widened });
  }

  function emit(
    outcome: ReloadEvent["outcome"],
    project: Project,
    widened: boolean,
    changes: readonly string[],
    error?: string,
  ): ReloadEvent {
    return bus.emit({
      event: "reload",
      outcome,
      widened,
      changes: [...changes],
      policyDigest: project.policyDigest,
      ...(error === undefined ? {} : { error }),
    }) as ReloadEvent;
  }

  function requirePending(sequence: number | undefined): Extract<ReloadState<Project>, { kind: "waiting" }> {
    if (state.kind !== "waiting") throw new CodedError("no-pending-reload", "no change is waiting");
    reloadTransition(state, { kind: "refused", ...(sequence === undefined ? {} : { revision: sequence }) });
    return state;
  }

  return {
    get current() {
      return state.current;
    },
    get pending() {
      return pending;
    },
    accept: (sequence) =>
      inTurn(() => {
        const { next, changes } = requirePending(sequence);
        return putInForce(next, "reload.accepted", true, changes);
      }),
    refuse(sequence) {
      const { current, changes } = requirePending(sequence);
      audit.append("reload.refused", { changes, policy: current.policyDigest }, { sync: true });
      state = { kind: "current", current };
      pending = undefined;
      return emit("refused", current, true, changes);
    },
    reloadNow: (how) => inTurn(() => saved(how)),
    // A save between the first load and the first look of the watch is not lost either.
    ready: (watch?.ready ?? Promise.resolve())
      .then(() => inTurn(() => saved({ accepted: false })))
      .then(() => undefined),
    close: async () => {
      await watch?.close();
      await last;
    },
  };
}

const BROKEN = { severity: "error", code: "reload-broken" } as const;
