import {
  type handleBidiStreamingCall,
  type handleServerStreamingCall,
  type ServerDuplexStream,
  type ServerWritableStream,
  status,
} from "@grpc/grpc-js";
import { StatusError, statusOf } from "./grpc-status.js";
import { type OpenStream, type SendingCall, type StreamedState, streamState } from "./state-stream.js";

/** All open streams, so that a shutdown ends each with a status instead of a broken connection. */
export interface OpenStreams {
  /** A handler that opens a stream of the state that `open` gives once the caller is known. */
  handle<Request, Message>(
    open: (call: ServerWritableStream<Request, Message>) => Promise<StreamedState<Message>>,
  ): handleServerStreamingCall<Request, Message>;
  /** The same for an RPC in which the client goes on sending; what it sends, `open` listens to. */
  converse<Request, Message>(
    open: (call: ServerDuplexStream<Request, Message>) => Promise<StreamedState<Message>>,
  ): handleBidiStreamingCall<Request, Message>;
  readonly size: number;
  /** Ends all that are open, and every later one, with Unavailable. */
  close(reason: string): void;
}

export function createOpenStreams(): OpenStreams {
  const open = new Set<OpenStream>();
  let closed: StatusError | undefined;

  async function serve<Call extends SendingCall<Message>, Message>(
    call: Call,
    source: (call: Call) => Promise<StreamedState<Message>>,
  ): Promise<void> {
    try {
      const state = await source(call);
      if (closed !== undefined) throw closed;
      let stream: OpenStream | undefined;
      let over = false;
      stream = streamState(call, {
        ...state,
        ended(failure) {
          over = true;
          if (stream !== undefined) open.delete(stream);
          state.ended?.(failure);
        },
      });
      if (!over) open.add(stream);
    } catch (thrown) {
      call.emit("error", statusOf(thrown).toServiceError());
    }
  }

  return {
    handle: (source) => (call) => void serve(call, source),
    converse: (source) => (call) => void serve(call, source),
    get size() {
      return open.size;
    },
    close(reason) {
      closed = new StatusError(status.UNAVAILABLE, reason);
      for (const stream of [...open]) stream.fail(closed);
    },
  };
}
