import type { handleUnaryCall, ServerUnaryCall } from "@grpc/grpc-js";
import { statusOf } from "./grpc-status.js";

/** A unary handler that answers what `answer` returns, or the status of what it throws. */
export function unary<Request, Response>(
  answer: (call: ServerUnaryCall<Request, Response>) => Promise<Response>,
): handleUnaryCall<Request, Response> {
  return (call, callback) => {
    answer(call).then(
      (response) => callback(null, response),
      (thrown: unknown) => callback(statusOf(thrown).toServiceError()),
    );
  };
}
