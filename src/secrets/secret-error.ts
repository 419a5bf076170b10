import { CodedError } from "../coded-error.js";

type SecretErrorCode =
  /** Nothing there has a value. */
  | "secret-missing"
  /** `agentid.yaml` names no such secret. */
  | "secret-unknown"
  /** It is there, and cannot be read, or must not be relied on: a file that others may read, a command that fails. */
  | "secret-unreadable"
  /** Its value would not stay inside the value of a header. */
  | "secret-malformed"
  | "no-keychain"
  /** Another source than the keychain has it. */
  | "secret-elsewhere";

/** Never holds a value, nor what a command has printed. */
export class SecretError extends CodedError<SecretErrorCode> {
  override readonly name = "SecretError";
}
