import { CodedError } from "../coded-error.js";

export type AuditErrorCode =
  /** The entry is not in the file; whatever it is about must not happen. */
  | "audit-unwritable"
  /** Larger than an entry may be, or not JSON. */
  | "audit-entry-invalid"
  /** The file is not what was written to it. */
  | "audit-tampered"
  | "audit-closed";

export class AuditError extends CodedError<AuditErrorCode> {
  override readonly name = "AuditError";
}
