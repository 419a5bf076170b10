import { CodedError } from "../coded-error.js";

/** One thing that is wrong in a file of the project, and where. */
export interface ConfigProblem {
  /** As people name it: `agentid.yaml`. */
  readonly file: string;
  /** 1-based; 0 when the problem is the file as a whole. */
  readonly line: number;
  /** 1-based; 0 when the problem is the file as a whole. */
  readonly column: number;
  /** `identities.agents/billing.launch[1]`; empty for the file as a whole. */
  readonly path: string;
  readonly message: string;
}

/**
 * `config-invalid`: the file was read and is wrong. `config-unreadable`: it could not be read at all.
 * `config-untrusted`: somebody else may write it, and it says which programs to start.
 */
export type ConfigErrorCode = "config-invalid" | "config-unreadable" | "config-untrusted";

/** A wrong anchor or indentation can break every entry of a long file; the message stays one that people and logs can hold. */
const MAX_SHOWN = 100;

/** Everything that is wrong with `agentid.yaml` or `agentid.lock`, all at once. */
export class ConfigError extends CodedError<ConfigErrorCode> {
  override readonly name = "ConfigError";
  readonly problems: readonly ConfigProblem[];

  constructor(
    code: ConfigErrorCode,
    problems: readonly ConfigProblem[],
    options: { hint?: string; cause?: unknown } = {},
  ) {
    const more = problems.length - MAX_SHOWN;
    const lines = problems.slice(0, MAX_SHOWN).map(formatProblem);
    super(code, [...lines, ...(more > 0 ? [`… and ${more} more`] : [])].join("\n"), options);
    this.problems = problems;
  }
}

/** `agentid.yaml:12:5  identities.agents/biling.lanch: unknown key "lanch"; did you mean "launch"?` */
function formatProblem(problem: ConfigProblem): string {
  const place = problem.line === 0 ? problem.file : `${problem.file}:${problem.line}:${problem.column}`;
  return `${place}  ${problem.path === "" ? "" : `${problem.path}: `}${problem.message}`;
}
