import { CodedError } from "../coded-error.js";

/** What goes wrong between us and a process at the other end of a connection. */
export class ProcessError extends CodedError<"peer-unknown" | "process-gone" | "unsupported"> {
  override readonly name = "ProcessError";
}

export function processGone(pid: number, cause?: unknown): ProcessError {
  return new ProcessError("process-gone", `process ${pid} has exited`, cause === undefined ? {} : { cause });
}
