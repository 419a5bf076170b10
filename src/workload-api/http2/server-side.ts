import type { Socket } from "node:net";
import { experimental, type Server, ServerCredentials, ServerInterceptingCall } from "@grpc/grpc-js";
import { readOpening } from "./opening.js";
import type { RequestFrames } from "./request-frames.js";
import { rewrittenConnection } from "./rewritten-connection.js";

type Injector = ReturnType<Server["createConnectionInjector"]>;

/** Accepted connections on their way into the gRPC server. */
export interface GrpcConnections {
  /** Serves a connection whose `remoteAddress` is what its calls shall be known by. */
  serve(socket: Socket): void;
  /** Closes connections without a request at once, and the others when their calls have ended, at the latest after `graceMs`. */
  drain(graceMs: number): void;
  destroy(): void;
}

/**
 * Connections for `grpc`, also those of grpc-java, which names the socket's path as `:authority`: Node's HTTP/2 refuses a slash there (RFC 3986 §3.2) before
 * any of our code sees the request, and has no option for it. Others are served by their own socket, as if nobody stood in between.
 */
export function createGrpcConnections(grpc: Server, maxConcurrentStreams: number): GrpcConnections {
  const direct = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  const rewritten = new Set<Injector>();
  const opening = new Set<Socket>();
  const settings = settingsFrame(maxConcurrentStreams);

  function serveRewritten(socket: Socket, frames: RequestFrames, received: Buffer): void {
    const injector = grpc.createConnectionInjector(credentialsNaming(socket.remoteAddress ?? ""));
    rewritten.add(injector);
    socket.once("close", () => {
      rewritten.delete(injector);
      injector.destroy();
    });
    injector.injectConnection(rewrittenConnection(socket, frames, received));
  }

  return {
    serve(socket) {
      opening.add(socket);
      socket.once("close", () => opening.delete(socket));
      readOpening(socket, settings, {
        asItIs() {
          opening.delete(socket);
          direct.injectConnection(socket);
        },
        rewritten(frames, received) {
          opening.delete(socket);
          serveRewritten(socket, frames, received);
        },
      });
    },
    drain(graceMs) {
      for (const socket of opening) socket.destroy();
      for (const injector of [direct, ...rewritten]) injector.drain(graceMs);
    },
    destroy() {
      for (const injector of [direct, ...rewritten]) injector.destroy();
    },
  };
}

/** Calls on a stream that is no socket have no peer; these have `peer`. */
function credentialsNaming(peer: string): ServerCredentials {
  class NamedCall extends ServerInterceptingCall {
    override getPeer(): string {
      return peer;
    }
  }
  return experimental.createServerCredentialsWithInterceptors(ServerCredentials.createInsecure(), [
    (_method, call) => new NamedCall(call),
  ]);
}

/** SETTINGS with the one setting that the server's own will have (RFC 9113 §6.5). */
function settingsFrame(maxConcurrentStreams: number): Buffer {
  const frame = Buffer.from([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0]);
  frame.writeUInt32BE(maxConcurrentStreams, 11);
  return frame;
}
