import { type ServerErrorResponse, type ServiceError, status } from "@grpc/grpc-js";
import { type CodedError, codeOf, messageOf } from "../coded-error.js";

/** How an RPC ends that does not succeed: a gRPC status code and a message for people. */
export class StatusError extends Error {
  override readonly name = "StatusError";
  readonly status: status;

  constructor(code: status, message: string, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = code;
  }

  /** The form that grpc-js takes in a callback or an `error` event. */
  toServiceError(): ServerErrorResponse & Pick<ServiceError, "code" | "details"> {
    return Object.assign(new Error(this.message), { code: this.status, details: this.message });
  }
}

/**
 * Which status each failure of the layers below becomes.
 *
 * `process-gone` and `process-changed` are Unauthenticated, as in SPIRE: the kernel no longer vouches for the one who connected.
 * All that we are not ready for, or cannot record, is Unavailable (WE §6): clients try again.
 */
const statusOfCode: Readonly<Record<string, status>> = {
  "process-gone": status.UNAUTHENTICATED,
  "process-changed": status.UNAUTHENTICATED,
  "peer-unknown": status.UNAUTHENTICATED,
  "identity-unknown": status.UNAVAILABLE,
  "identity-revoked": status.PERMISSION_DENIED,
  "not-ready": status.UNAVAILABLE,
  "audit-unwritable": status.UNAVAILABLE,
};

/** The status for anything thrown on the way to an answer. What nobody foresaw is Internal, without its details. */
export function statusOf(thrown: unknown): StatusError {
  if (thrown instanceof StatusError) return thrown;
  const known = statusOfCode[codeOf(thrown)];
  if (known !== undefined) return new StatusError(known, withHint(thrown), { cause: thrown });
  return new StatusError(status.INTERNAL, "agentid failed to answer; its log says why", { cause: thrown });
}

function withHint(thrown: unknown): string {
  const hint = (thrown as Partial<CodedError>).hint;
  return hint === undefined ? messageOf(thrown) : `${messageOf(thrown)}: ${hint}`;
}
