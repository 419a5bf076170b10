import type { ClientReadableStream, ServiceError } from "@grpc/grpc-js";
import type { Clock } from "../../platform/clock.js";
import { fromGrpc, mayPass, WorkloadApiError } from "./workload-api-error.js";

/** One stream of the Workload API on a connection of its own. */
export interface OpenedStream<Message> {
  readonly stream: ClientReadableStream<Message>;
  /** Gives the connection back. */
  readonly release: () => void;
}

export interface WatchListener<Update> {
  onUpdate(update: Update): void;
  /**
   * Something went wrong and the watch goes on: the stream ended and is opened again after `retryInMs`, or (`retryInMs` absent) a message
   * was discarded and what was known before stays.
   */
  onProblem?(problem: WorkloadApiError, retryInMs: number | undefined): void;
  /** The watch is over for good: asking again cannot help. */
  onEnd?(error: WorkloadApiError): void;
}

export interface Watch {
  /** Where the watch is. */
  readonly state: WatchState;
  /** Ends it without another call of its listener. Idempotent. */
  close(): void;
}

/**
 * opening → receiving   a message arrived
 * opening, receiving → opening   the server closed: at once (ST-12), unless it did so just before too
 * opening, receiving → waiting   the stream failed with what may pass: after a back-off (EP-15)
 * waiting → opening   the back-off is over
 * any → ended   InvalidArgument, Unimplemented, or closed by us
 */
export type WatchState = "opening" | "receiving" | "waiting" | "ended";

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 5_000;
/** A server that closes a stream younger than this for a second time is not asked again at once. */
const SHORT_LIFE_MS = 1_000;

/**
 * Watches a server stream of the Workload API for as long as it is wanted, through restarts of the server. `read` makes an update of a
 * message, or throws WorkloadApiError for one to be discarded (Workload API §4.5).
 */
export function watchStream<Message, Update>(parts: {
  readonly open: () => OpenedStream<Message>;
  readonly read: (message: Message) => Update;
  readonly listener: WatchListener<Update>;
  readonly clock: Clock;
  /** In [0, 1): spreads the returns of many workloads to a server that was restarted. */
  readonly random?: () => number;
}): Watch {
  const { listener, clock, random = Math.random } = parts;
  let state: WatchState = "opening";
  let failures = 0;
  let closedEarly = false;
  let leave: () => void = () => {};

  function open(): void {
    state = "opening";
    const openedAt = clock.now();
    const { stream, release } = parts.open();
    let over = false;
    const end = (): boolean => {
      if (over) return false;
      over = true;
      leave = () => {};
      release();
      return true;
    };
    leave = () => {
      if (!end()) return;
      stream.on("error", () => {}); // CANCELLED, which we asked for
      stream.cancel();
    };
    stream.on("data", (message: Message) => {
      if (over) return;
      state = "receiving";
      failures = 0;
      receive(message);
    });
    stream.on("error", (error: ServiceError) => {
      if (end()) failed(fromGrpc(error));
    });
    stream.on("end", () => {
      if (end()) closedByServer(clock.now() - openedAt);
    });
  }

  function receive(message: Message): void {
    let update: Update;
    try {
      update = parts.read(message);
    } catch (thrown) {
      if (!(thrown instanceof WorkloadApiError)) throw thrown;
      listener.onProblem?.(thrown, undefined);
      return;
    }
    listener.onUpdate(update);
  }

  /** Workload API §4.2: "the client SHOULD immediately establish a new connection". */
  function closedByServer(lifeMs: number): void {
    const problem = new WorkloadApiError("workload-api-stream-closed", "the Workload API closed the stream");
    const again = closedEarly && lifeMs < SHORT_LIFE_MS;
    closedEarly = lifeMs < SHORT_LIFE_MS;
    if (again) {
      retry(problem);
      return;
    }
    listener.onProblem?.(problem, 0);
    if (state !== "ended") open();
  }

  function failed(error: WorkloadApiError): void {
    if (mayPass(error)) {
      retry(error);
      return;
    }
    state = "ended";
    listener.onEnd?.(error);
  }

  function retry(problem: WorkloadApiError): void {
    state = "waiting";
    const delayMs = Math.min(FIRST_DELAY_MS * 2 ** failures++, LONGEST_DELAY_MS) * (0.75 + random() / 2);
    leave = clock.after(delayMs, open);
    listener.onProblem?.(problem, delayMs);
  }

  open();
  return {
    get state() {
      return state;
    },
    close() {
      state = "ended";
      leave();
    },
  };
}
