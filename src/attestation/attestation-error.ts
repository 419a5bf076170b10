import { CodedError } from "../coded-error.js";

/** A process is not what it was when it was attested. Code `process-changed` or `process-gone`. */
export class AttestationError extends CodedError<"process-changed" | "process-gone"> {
  override readonly name = "AttestationError";
}

export function processChanged(pid: number, how: string): AttestationError {
  return new AttestationError("process-changed", `process ${pid} has changed since it connected: ${how}`, {
    hint: "Connect again: a new connection is attested anew.",
  });
}
