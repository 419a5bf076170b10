import { CodedError } from "../coded-error.js";

/**
 * What becomes of a saved change (D13), as a state machine without files or clocks: the daemon loads, compares, and asks here.
 *
 * ```
 *            saved-good (narrower, or auto)            accepted / refused
 *   current ─────────────────────────────▶ current ◀──────────────────── waiting
 *      │  ▲                                                                ▲
 *      │  └── saved-good (narrower, or auto) ── failed                     │
 *      └───── saved-broken ──▶ failed;  saved-good (widened, confirm) ─────┘  from every state
 * ```
 */

/** Whatever makes up a loaded project; the machine looks only at how it wants widenings handled. */
export interface Reloadable {
  readonly config: { readonly reload: "confirm" | "auto" };
}

export type ReloadState<Project extends Reloadable> =
  /** What is saved is in force, or was refused. */
  | { readonly kind: "current"; readonly current: Project }
  /** What is saved would permit more; `current` stays in force until somebody decides. */
  | {
      readonly kind: "waiting";
      readonly current: Project;
      readonly next: Project;
      readonly changes: readonly string[];
      /** Names exactly this waiting change; another save gets another number. */
      readonly revision: number;
    }
  /** What is saved is broken; the last good state stays in force. */
  | { readonly kind: "failed"; readonly current: Project; readonly error: Error };

export type ReloadEvent<Project extends Reloadable> =
  /** `widened` and `changes` compare `next` with the state's `current`, never with another project that waited in between. */
  | {
      readonly kind: "saved-good";
      readonly next: Project;
      readonly widened: boolean;
      readonly changes: readonly string[];
      readonly revision: number;
    }
  | { readonly kind: "saved-broken"; readonly error: Error }
  /** `revision`: what the user was shown. Without it whatever waits is meant. */
  | { readonly kind: "accepted"; readonly revision?: number }
  | { readonly kind: "refused"; readonly revision?: number };

type ReloadErrorCode = "reload-not-waiting" | "reload-changed";

/** An acceptance or refusal that does not fit: nothing waits, or something else than what was shown. */
class ReloadError extends CodedError<ReloadErrorCode> {
  override readonly name = "ReloadError";
}

/** The state at start. */
export function reloadStarted<Project extends Reloadable>(current: Project): ReloadState<Project> {
  return { kind: "current", current };
}

/** The state after `event`. Throws ReloadError `reload-not-waiting` or `reload-changed`, and then nothing has changed. */
export function reloadTransition<Project extends Reloadable>(
  state: ReloadState<Project>,
  event: ReloadEvent<Project>,
): ReloadState<Project> {
  switch (event.kind) {
    case "saved-good":
      return afterGoodSave(state.current, event);
    case "saved-broken":
      // A change that waited is no longer what the file says: nobody can accept it any more.
      return { kind: "failed", current: state.current, error: event.error };
    case "accepted":
      return { kind: "current", current: waitingFor(state, event.revision).next };
    case "refused":
      return { kind: "current", current: waitingFor(state, event.revision).current };
  }
}

function afterGoodSave<Project extends Reloadable>(
  current: Project,
  { next, widened, changes, revision }: Extract<ReloadEvent<Project>, { kind: "saved-good" }>,
): ReloadState<Project> {
  // The mode in force decides, not the saved one: otherwise a save could switch its own confirmation off.
  if (widened && current.config.reload === "confirm") return { kind: "waiting", current, next, changes, revision };
  return { kind: "current", current: next };
}

function waitingFor<Project extends Reloadable>(
  state: ReloadState<Project>,
  revision: number | undefined,
): Extract<ReloadState<Project>, { kind: "waiting" }> {
  if (state.kind !== "waiting") {
    throw new ReloadError("reload-not-waiting", "no change is waiting to be accepted or refused");
  }
  if (revision !== undefined && revision !== state.revision) {
    throw new ReloadError("reload-changed", "the files were saved again since this change was shown", {
      hint: "look at what waits now, then decide",
    });
  }
  return state;
}
