import { type Metadata, ServerInterceptingCall, type ServerInterceptor, status } from "@grpc/grpc-js";

const HEADER = "workload.spiffe.io";
const SERVICE = "/SpiffeWorkloadAPI/";

/**
 * Refuses an RPC of the Workload API without `workload.spiffe.io: true` as InvalidArgument, when its headers arrive and before anything else is looked at.
 * "All SPIFFE Workload Endpoint clients MUST include it; the endpoint MUST reject any request without it" (SPIFFE_Workload_Endpoint §3, §6):
 * it keeps a server-side request forgery from reaching the socket. Other services on the socket (health) do not need it.
 */
export const requireSecurityHeader: ServerInterceptor = (method, call) => {
  if (!method.path.startsWith(SERVICE)) return new ServerInterceptingCall(call);
  return new ServerInterceptingCall(call, {
    start: (next) =>
      next({
        onReceiveMetadata: (metadata, deliver) => {
          const refusal = refusalOf(metadata);
          if (refusal === undefined) deliver(metadata);
          else call.sendStatus({ code: status.INVALID_ARGUMENT, details: refusal, metadata: null });
        },
      }),
  });
};

/** What is wrong with the header, or undefined. A repeated header arrives as a list, or joined by a comma. */
function refusalOf(metadata: Metadata): string | undefined {
  const values = metadata.get(HEADER);
  if (values.length === 0) return `security header missing from request: send the metadata "${HEADER}: true"`;
  if (values.length > 1)
    return `security header given ${values.length} times: send the metadata "${HEADER}: true" once`;
  if (values[0] !== "true") return `security header must be exactly "true": send the metadata "${HEADER}: true"`;
  return undefined;
}
