import { type Metadata, ServerInterceptingCall, type ServerInterceptor, status } from "@grpc/grpc-js";

const HEADER = "workload.spiffe.io";
const SERVICE = "/SpiffeWorkloadAPI/";

/**
 * Refuses an RPC of the Workload API without `workload.spiffe.io: true` as InvalidArgument, when its headers arrive and before anything else is looked at.
 * "All SPIFFE Workload Endpoint clients MUST include it; the endpoint MUST reject any request without it" (SPIFFE_Workload_Endpoint §3, §6):
 * it keeps a server-side request forgery from reaching the socket. Other services on the socket (health, reflection, SDS) do not need it.
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

/** What is wrong with the header, or undefined. HTTP/2 joins a repeated header by commas, which is then another value. */
function refusalOf(metadata: Metadata): string | undefined {
  const [value, ...more] = metadata.get(HEADER);
  if (value === "true" && more.length === 0) return undefined;
  const wrong = value === undefined ? "missing from request" : 'must be exactly "true", and only once';
  return `security header ${wrong}: send the metadata "${HEADER}: true"`;
}
