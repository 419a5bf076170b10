import { codeOf, messageOf } from "../coded-error.js";

/** One rule of a standard, and whether a certificate or token keeps it. */
export interface RuleOutcome {
  /** Where the rule stands: `X509-SVID §3.1`. */
  readonly source: string;
  /** The standard's own sentence. */
  readonly sentence: string;
  /** `unknown`: there was nothing to judge it by. */
  readonly verdict: "kept" | "broken" | "unknown";
  /** What is wrong, or what was missing to judge; empty for a rule that is kept. */
  readonly detail: string;
  /** Stable name of the error, for a broken rule. */
  readonly code: string | undefined;
}

export interface Rule<Subject> {
  readonly source: string;
  readonly sentence: string;
  /** Throws CodedError when `subject` breaks the rule; answers why it cannot be judged, or undefined. */
  check(subject: Subject): string | undefined;
}

/** Every rule's outcome for `subject`, each judged for itself. */
export function judge<Subject>(rules: readonly Rule<Subject>[], subject: Subject): readonly RuleOutcome[] {
  return rules.map(({ source, sentence, check }) => ({ source, sentence, ...outcomeOf(() => check(subject)) }));
}

function outcomeOf(check: () => string | undefined): Pick<RuleOutcome, "verdict" | "detail" | "code"> {
  try {
    const missing = check();
    return { verdict: missing === undefined ? "kept" : "unknown", detail: missing ?? "", code: undefined };
  } catch (thrown) {
    return { verdict: "broken", detail: messageOf(thrown), code: codeOf(thrown) };
  }
}

/** What another rule rests on, or undefined where that one is broken: then nothing is said twice. */
export function unlessBroken<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
