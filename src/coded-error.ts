/**
 * An error that programs recognise by `code` and people understand by `message`.
 *
 * Every layer throws these; nobody compares messages. `message` says what happened, `hint` what to do next.
 */
export class CodedError<Code extends string = string> extends Error {
  override readonly name: string = "CodedError";
  readonly code: Code;
  readonly hint: string | undefined;

  constructor(code: Code, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }
}

/** The code of any thrown value, for logs and answers: a `CodedError`'s own, Node's (`ENOENT`), else `unexpected`. */
export function codeOf(thrown: unknown): string {
  if (thrown instanceof Error && "code" in thrown && typeof thrown.code === "string") return thrown.code;
  return "unexpected";
}

/** The message of any thrown value. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
