import { type Metadata, ServerInterceptingCall, type ServerInterceptor, status } from "@grpc/grpc-js";

/** What grpc-js hands an interceptor; it does not export the names. */
type InterceptedCall = Parameters<ServerInterceptor>[1];
type CallListener = Parameters<InterceptedCall["start"]>[0];

const HEADER = "workload.spiffe.io";
const SERVICE = "/SpiffeWorkloadAPI/";

/**
 * Refuses an RPC of the Workload API without `workload.spiffe.io: true` as InvalidArgument, when its headers arrive and before anything else is looked at.
 * "All SPIFFE Workload Endpoint clients MUST include it; the endpoint MUST reject any request without it" (SPIFFE_Workload_Endpoint §3, §6):
 * it keeps a server-side request forgery from reaching the socket. Other services on the socket (health, reflection, SDS) do not need it.
 */
export const requireSecurityHeader: ServerInterceptor = (method, call) =>
  method.path.startsWith(SERVICE) ? new HeaderCheckedCall(call) : new ServerInterceptingCall(call);

/** Looks at what comes first and passes everything else on as it is. */
class HeaderCheckedCall extends ServerInterceptingCall {
  readonly #call: InterceptedCall;

  constructor(call: InterceptedCall) {
    super(call);
    this.#call = call;
  }

  override start(listener: CallListener): void {
    let cancelled = false;
    this.#call.start({
      onReceiveMetadata: (metadata) => {
        const refusal = refusalOf(metadata);
        if (refusal === undefined) listener.onReceiveMetadata(metadata);
        else this.#call.sendStatus({ code: status.INVALID_ARGUMENT, details: refusal, metadata: null });
      },
      // What was read before a cancellation may come after it: nothing is issued for who has gone.
      onReceiveMessage(message) {
        if (!cancelled) listener.onReceiveMessage(message);
      },
      onReceiveHalfClose() {
        if (!cancelled) listener.onReceiveHalfClose();
      },
      onCancel() {
        cancelled = true;
        listener.onCancel();
      },
    });
  }

  override sendMetadata(metadata: Metadata): void {
    this.#call.sendMetadata(metadata);
  }

  override sendMessage(message: unknown, sent: () => void): void {
    this.#call.sendMessage(message, sent);
  }

  override sendStatus(ending: Parameters<InterceptedCall["sendStatus"]>[0]): void {
    this.#call.sendStatus(ending);
  }
}

/** What is wrong with the header, or undefined. HTTP/2 joins a repeated header by commas, which is then another value. */
function refusalOf(metadata: Metadata): string | undefined {
  const [value, ...more] = metadata.get(HEADER);
  if (value === "true" && more.length === 0) return undefined;
  const wrong = value === undefined ? "missing from request" : 'must be exactly "true", and only once';
  return `security header ${wrong}: send the metadata "${HEADER}: true"`;
}
