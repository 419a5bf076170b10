import { type ServiceError, status } from "@grpc/grpc-js";
import { CodedError } from "../../coded-error.js";

export type WorkloadApiErrorCode =
  | "workload-api-address-missing"
  | "workload-api-address-invalid"
  | "workload-api-unavailable"
  | "workload-api-permission-denied"
  | "workload-api-invalid-argument"
  | "workload-api-unimplemented"
  | "workload-api-deadline-exceeded"
  | "workload-api-failed"
  | "workload-api-stream-closed"
  | "workload-api-message-incomplete"
  | "workload-api-message-invalid"
  | "workload-api-aborted"
  | "workload-api-closed"
  | "svid-withdrawn"
  | "svid-expired"
  | "svid-not-picked";

/** What can go wrong between a workload and its Workload API. */
export class WorkloadApiError extends CodedError<WorkloadApiErrorCode> {
  override readonly name = "WorkloadApiError";
}

const CODES: Partial<Record<status, WorkloadApiErrorCode>> = {
  [status.UNAVAILABLE]: "workload-api-unavailable",
  [status.PERMISSION_DENIED]: "workload-api-permission-denied",
  [status.INVALID_ARGUMENT]: "workload-api-invalid-argument",
  [status.UNIMPLEMENTED]: "workload-api-unimplemented",
  [status.DEADLINE_EXCEEDED]: "workload-api-deadline-exceeded",
};

const HINTS: Partial<Record<status, string>> = {
  [status.UNAVAILABLE]: "is the Workload API running at this address?",
  [status.PERMISSION_DENIED]: "this process has no identity there; see what it is registered as",
};

/** The error of an RPC that ended with a gRPC status. Workload Endpoint §6. */
export function fromGrpc(error: Pick<ServiceError, "code" | "details">): WorkloadApiError {
  const hint = HINTS[error.code];
  return new WorkloadApiError(
    CODES[error.code] ?? "workload-api-failed",
    `the Workload API answered ${status[error.code]}: ${error.details}`,
    { ...(hint === undefined ? {} : { hint }), cause: error },
  );
}

/**
 * Whether asking again can help. Workload Endpoint §6 and Appendix A: InvalidArgument and Unimplemented stay what they are,
 * everything else may pass (EP-15).
 */
export function mayPass({ code }: WorkloadApiError): boolean {
  return code !== "workload-api-invalid-argument" && code !== "workload-api-unimplemented";
}
