import { type StatusError, statusOf } from "./grpc-status.js";
import { inTurn } from "./turns.js";

/**
 * Where a stream is between two messages.
 *
 * `quiet`: the client has the newest state. `due`: a message will be made at the next turn of the event loop.
 * `writing`: a message is on its way and the transport has not taken it. `outdated`: the same, and the state has changed since.
 * `ended`: for good.
 */
export type StreamState = "quiet" | "due" | "writing" | "outdated" | "ended";

/**
 * `changed`: something the answer depends on changed. `wrote`: a message was handed to the transport. `same`: nothing new to say.
 * `taken`: the transport has room again. `end`: the client went away, or we ended the stream.
 */
export type StreamEvent = "changed" | "wrote" | "same" | "taken" | "end";

const transitions: Readonly<Record<StreamState, Partial<Record<StreamEvent, StreamState>>>> = {
  quiet: { changed: "due", end: "ended" },
  due: { wrote: "writing", same: "quiet", end: "ended" },
  writing: { changed: "outdated", taken: "quiet", end: "ended" },
  outdated: { taken: "due", end: "ended" },
  ended: {},
};

/** The state after `event`; an event that means nothing in a state leaves it. */
export function nextStreamState(state: StreamState, event: StreamEvent): StreamState {
  return transitions[state][event] ?? state;
}

/** What a stream says, and when to say it again. */
export interface StreamedState<Message> {
  /** The complete state now (ST-2), entitlement and caller checked afresh (ST-9), recorded; undefined if there is nothing to say. What it throws ends the stream. */
  read(): Message | undefined;
  /** Calls `changed` whenever `read` may answer differently; the returned function unsubscribes. */
  subscribe(changed: () => void): () => void;
  /** True if a message equal to the one before need not be sent (ST-11). */
  same?(previous: Message, next: Message): boolean;
  /** Called once, when the stream is over, whoever ended it. `failure` is absent if the client left. */
  ended?(failure: StatusError | undefined): void;
}

/** The side of a call that messages are sent on, whatever the client may send. */
export interface SendingCall<Message> {
  readonly cancelled: boolean;
  readonly destroyed: boolean;
  once(event: "cancelled" | "close", listener: () => void): unknown;
  emit(event: "error", error: Error): boolean;
  write(message: Message, taken: () => void): boolean;
}

/** A stream that is open. */
export interface OpenStream {
  readonly state: StreamState;
  /** Ends it with a status. */
  fail(failure: StatusError): void;
}

/**
 * Streams the complete state: at once (ST-1), then after each change (ST-3), until the client leaves or `read` throws.
 *
 * A client that does not read costs one message: while one is on its way only the fact that there is a newer state is kept,
 * and the state itself is read when there is room. Changes that come together are one message.
 */
export function streamState<Message>(call: SendingCall<Message>, source: StreamedState<Message>): OpenStream {
  let state: StreamState = "due";
  let previous: Message | undefined;
  let unsubscribe: () => void = () => undefined;

  const enter = (event: StreamEvent): boolean => {
    const before = state;
    state = nextStreamState(state, event);
    return state !== before;
  };
  const release = (failure: StatusError | undefined): void => {
    unsubscribe();
    previous = undefined;
    source.ended?.(failure);
  };
  const changed = (): void => {
    if (enter("changed") && state === "due") inTurn(send);
  };
  const taken = (): void => {
    if (enter("taken") && state === "due") inTurn(send);
  };
  const fail = (failure: StatusError): void => {
    if (!enter("end")) return;
    release(failure);
    call.emit("error", failure.toServiceError());
  };
  const send = (): void => {
    if (state !== "due") return;
    try {
      const message = source.read();
      if (message === undefined || (previous !== undefined && source.same?.(previous, message) === true)) {
        enter("same");
        return;
      }
      previous = source.same === undefined ? undefined : message;
      enter("wrote");
      call.write(message, taken);
    } catch (thrown) {
      fail(statusOf(thrown));
    }
  };
  const left = (): void => {
    if (enter("end")) release(undefined);
  };

  call.once("cancelled", left);
  call.once("close", left);
  // The call may have been cancelled while its caller was being attested, before anybody listened.
  if (call.cancelled || call.destroyed) {
    left();
  } else {
    unsubscribe = source.subscribe(changed);
    send();
  }
  return {
    get state() {
      return state;
    },
    fail,
  };
}
