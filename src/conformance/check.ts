import type { Context } from "./context.js";

/** M: MUST in the text, or meaningless without it. S: SHOULD. I: not in the text, but a shipped client insists on it. */
export type Level = "M" | "S" | "I";

/**
 * One numbered statement of a standard, as it can be seen from outside.
 *
 * `source`: WA SPIFFE Workload API, WE Workload Endpoint, ID SPIFFE-ID, XS X509-SVID, JS JWT-SVID, WIT WIT-SVID, FD Federation,
 * `proto` workloadapi.proto; or the client or server whose behaviour it is.
 */
export interface Check {
  /** Stable: reports, CI and bug reports cite it. */
  readonly id: string;
  readonly level: Level;
  readonly sentence: string;
  readonly source: string;
  /** Begins what is to be watched while all other checks run. */
  readonly prepare?: (context: Context) => Promise<void>;
  /** What is wrong, in words for people; nothing if the statement holds. Throws Skipped where it cannot be told, Failed where the server left us waiting. */
  run(context: Context): Promise<readonly string[]>;
}

/** The statement cannot be told from here, or another check has failed that this one builds upon: no verdict. */
export class Skipped extends Error {
  override readonly name = "Skipped";
}

/** The server broke off what a check was about to look at. */
export class Failed extends Error {
  override readonly name = "Failed";
}

/** Ends a check without a verdict. */
export function skip(why: string): never {
  throw new Skipped(why);
}

/** What `problemOf` says of each of `values`, without those it has nothing to say of. */
export function problemsOf<T>(values: Iterable<T>, problemOf: (value: T) => string | undefined): readonly string[] {
  return [...values].map(problemOf).filter((problem) => problem !== undefined);
}

/** The message of whatever `attempt` throws; undefined if it succeeds. */
export function whyNot(attempt: () => unknown): string | undefined {
  try {
    attempt();
    return undefined;
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown);
  }
}
