import {
  type ClientReadableStream,
  type ClientUnaryCall,
  credentials,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";
import type { Clock } from "../../platform/clock.js";
import type { SpiffeId } from "../../spiffe/spiffe-id.js";
import {
  type JWTSVIDResponse,
  SpiffeWorkloadAPIClient,
  type ValidateJWTSVIDResponse,
} from "../../workload-api/generated/workload.js";
import { workloadEndpoint } from "./endpoint.js";
import {
  type JwtBundleMap,
  type JwtSvid,
  type JwtSvidRequest,
  readJwtBundles,
  readJwtSvids,
  readValidation,
  readWitBundles,
  type ServerValidatedJwtSvid,
} from "./jwt-messages.js";
import { type Watch, type WatchListener, watchStream } from "./watched-stream.js";
import { fromGrpc, WorkloadApiError } from "./workload-api-error.js";
import { readX509Bundles, readX509Context, type X509Bundles, type X509Context } from "./x509-context.js";

export interface WorkloadApiOptions {
  /** `unix:///path` or `tcp://ip:port`. Default: SPIFFE_ENDPOINT_SOCKET. */
  readonly socketPath?: string | undefined;
  /** Default: `process.env`. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly clock?: Clock;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** How long to wait for the answer. Default 10,000. */
  readonly timeoutMs?: number | undefined;
}

/** A client of any SPIFFE Workload API. A watch lives until it is closed, through restarts of the server; a fetch asks once. */
export interface WorkloadApiClient {
  /** The address that is asked. */
  readonly address: string;
  watchX509Context(listener: WatchListener<X509Context>): Watch;
  watchX509Bundles(listener: WatchListener<X509Bundles>): Watch;
  watchJwtBundles(listener: WatchListener<JwtBundleMap>): Watch;
  /** The state now. Rejects with WorkloadApiError: the status it ended with, or what is wrong with the message. */
  fetchX509Context(options?: CallOptions): Promise<X509Context>;
  fetchX509Bundles(options?: CallOptions): Promise<X509Bundles>;
  fetchJwtBundles(options?: CallOptions): Promise<JwtBundleMap>;
  /** The keys of WIT-SVIDs by name of their trust domain. Incubating: rejects with `workload-api-unimplemented` where the server has no such profile. */
  fetchWitBundles(options?: CallOptions): Promise<JwtBundleMap>;
  /** One JWT-SVID for each identity, or the one for `request.id`, the default first. Rejects with WorkloadApiError. */
  fetchJwtSvids(request: JwtSvidRequest, options?: CallOptions): Promise<readonly JwtSvid[]>;
  /** Has the server validate `token` for `audience`. Rejects with WorkloadApiError `workload-api-invalid-argument` for a bad token. */
  validateJwtSvid(token: string, audience: string, options?: CallOptions): Promise<ServerValidatedJwtSvid>;
  /** Ends every watch and call. Idempotent. */
  close(): void;
}

/** Holds the process while somebody waits, as an open stream does. */
export const waitingClock: Clock = {
  now: () => Date.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};

const DEFAULT_TIMEOUT_MS = 10_000;
/** Bundles of many federated trust domains in one message. */
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/** Throws WorkloadApiError `workload-api-address-missing`, `workload-api-address-invalid`. Connects on first use. */
export function createWorkloadApiClient(options: WorkloadApiOptions = {}): WorkloadApiClient {
  const { address, target } = workloadEndpoint(options.socketPath, options.environment);
  const clock = options.clock ?? waitingClock;
  const open = new Set<() => void>();
  let closed = false;

  function connect(): SpiffeWorkloadAPIClient {
    if (closed) throw clientClosed();
    // A channel of its own for each stream and call: it holds no back-off of its own, so that ours alone says when to connect.
    return new SpiffeWorkloadAPIClient(target, credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
      "grpc.enable_retries": 0,
      "grpc.enable_http_proxy": 0,
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    });
  }

  function watch<Message, Update>(
    start: (client: SpiffeWorkloadAPIClient) => ClientReadableStream<Message>,
    read: (message: Message) => Update,
    listener: WatchListener<Update>,
  ): Watch {
    const opened = () => {
      const client = connect();
      return { stream: start(client), release: () => client.close() };
    };
    const inner = watchStream({ open: opened, read, listener, clock });
    const close = () => {
      open.delete(close);
      inner.close();
    };
    open.add(close);
    return {
      get state() {
        return inner.state;
      },
      close,
    };
  }

  function call<Answer>(
    start: (
      client: SpiffeWorkloadAPIClient,
      deadline: Date,
      answered: (error: ServiceError | null, answer: Answer) => void,
    ) => ClientUnaryCall,
    { signal, timeoutMs = DEFAULT_TIMEOUT_MS }: CallOptions,
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) return reject(aborted(signal));
      const client = connect();
      const abort = () => running.cancel();
      const running = start(client, new Date(Date.now() + timeoutMs), (error, answer) => {
        open.delete(abort);
        signal?.removeEventListener("abort", abort);
        client.close();
        if (error === null) resolve(answer);
        else if (signal?.aborted === true) reject(aborted(signal));
        else reject(closed ? clientClosed() : fromGrpc(error));
      });
      open.add(abort);
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  const watches: Pick<WorkloadApiClient, "watchX509Context" | "watchX509Bundles" | "watchJwtBundles"> = {
    watchX509Context: (listener) => watch((client) => client.fetchX509Svid({}, header()), readX509Context, listener),
    watchX509Bundles: (listener) => watch((client) => client.fetchX509Bundles({}, header()), readX509Bundles, listener),
    watchJwtBundles: (listener) => watch((client) => client.fetchJwtBundles({}, header()), readJwtBundles, listener),
  };

  return {
    address,
    ...watches,
    fetchX509Context: (fetchOptions = {}) => firstUpdate(watches.watchX509Context, fetchOptions, clock),
    fetchX509Bundles: (fetchOptions = {}) => firstUpdate(watches.watchX509Bundles, fetchOptions, clock),
    fetchJwtBundles: (fetchOptions = {}) => firstUpdate(watches.watchJwtBundles, fetchOptions, clock),
    fetchWitBundles: (fetchOptions = {}) =>
      firstUpdate(
        (listener) => watch((client) => client.fetchWitBundles({}, header()), readWitBundles, listener),
        fetchOptions,
        clock,
      ),
    async fetchJwtSvids(request, callOptions = {}) {
      const wanted = { audience: [...request.audience], spiffeId: idText(request.id) };
      const answer = await call<JWTSVIDResponse>(
        (client, deadline, answered) => client.fetchJwtsvid(wanted, header(), { deadline }, answered),
        callOptions,
      );
      return readJwtSvids(answer, request);
    },
    async validateJwtSvid(token, audience, callOptions = {}) {
      const answer = await call<ValidateJWTSVIDResponse>(
        (client, deadline, answered) =>
          client.validateJwtsvid({ svid: token, audience }, header(), { deadline }, answered),
        callOptions,
      );
      return readValidation(answer);
    },
    close() {
      closed = true;
      for (const end of [...open]) end();
    },
  };
}

/** The first update of a watch that ends with its first problem: what a fetch is. */
function firstUpdate<Update>(
  watch: (listener: WatchListener<Update>) => Watch,
  { signal, timeoutMs = DEFAULT_TIMEOUT_MS }: CallOptions,
  clock: Clock,
): Promise<Update> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) return reject(aborted(signal));
    const settle = (outcome: () => void) => {
      cancelTimeout();
      signal?.removeEventListener("abort", abort);
      // Not before the watch is there: its first problem may come while it opens.
      queueMicrotask(() => running.close());
      outcome();
    };
    const abort = () => settle(() => reject(aborted(signal)));
    const cancelTimeout = clock.after(timeoutMs, () =>
      settle(() =>
        reject(new WorkloadApiError("workload-api-deadline-exceeded", "the Workload API did not answer in time")),
      ),
    );
    signal?.addEventListener("abort", abort, { once: true });
    const running = watch({
      onUpdate: (update) => settle(() => resolve(update)),
      onProblem: (problem) => settle(() => reject(problem)),
      onEnd: (error) => settle(() => reject(error)),
    });
  });
}

export function aborted(signal: AbortSignal | undefined): WorkloadApiError {
  return new WorkloadApiError("workload-api-aborted", "nobody waits for the Workload API any more", {
    cause: signal?.reason,
  });
}

function clientClosed(): WorkloadApiError {
  return new WorkloadApiError("workload-api-closed", "the Workload API client is closed");
}

/** Workload Endpoint §3: "clients MUST include … the key `workload.spiffe.io` and the value `true`". */
function header(): Metadata {
  const metadata = new Metadata();
  metadata.set("workload.spiffe.io", "true");
  return metadata;
}

function idText(id: SpiffeId | string | undefined): string {
  return id === undefined ? "" : id.toString();
}
