import { constants, type ServerHttp2Stream } from "node:http2";
import type { Server } from "@grpc/grpc-js";

/** How grpc-js begins a stream; with channelz or without. Not part of its interface, so a version without them is refused. */
const STREAM_HANDLERS = ["_streamHandler", "_channelzHandler"];

type StreamHandler = (interceptors: unknown, stream: ServerHttp2Stream, headers: unknown) => void;

/**
 * grpc-js answers an unknown method or a wrong content type on the stream at once. A client may have reset it in the same packet, or sent what ends the
 * whole connection: then that throws (`ERR_HTTP2_INVALID_STREAM`) where nobody can catch it, and one rude client would end the process for all.
 * Must be called before the first connection.
 */
export function surviveGoneStreams(grpc: Server): void {
  for (const name of STREAM_HANDLERS) {
    const begin: unknown = Reflect.get(grpc, name);
    if (typeof begin !== "function")
      throw new Error(`this version of grpc-js begins streams in another way: no ${name}`);
    const survive: StreamHandler = (interceptors, stream, headers) => {
      // grpc-js listens to the first error only.
      stream.on("error", () => {});
      try {
        Reflect.apply(begin, grpc, [interceptors, stream, headers]);
      } catch {
        if (!stream.destroyed) stream.close(constants.NGHTTP2_INTERNAL_ERROR);
      }
    };
    Reflect.set(grpc, name, survive);
  }
}
