import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import type { RequestFrames } from "./request-frames.js";

/** `socket` with what the client sends passed through `frames`, after `received`, which has been. They live and die together. */
export function rewrittenConnection(socket: Socket, frames: RequestFrames, received: Buffer): Duplex {
  const connection = new Duplex({
    read: () => void socket.resume(),
    write: (chunk, _encoding, done) => void socket.write(chunk, done),
    writev(chunks, done) {
      socket.cork();
      for (const [index, { chunk }] of chunks.entries()) {
        if (index === chunks.length - 1) socket.write(chunk, done);
        else socket.write(chunk);
      }
      socket.uncork();
    },
    final: (done) => void socket.end(done),
    destroy(error, done) {
      socket.destroy();
      done(error);
    },
  });
  const give = (bytes: Buffer): void => {
    if (bytes.length > 0 && !connection.push(bytes)) socket.pause();
  };
  give(received);
  socket.on("data", (chunk: Buffer) => give(frames.pass(chunk)));
  socket.once("end", () => connection.push(null));
  socket.once("error", (error) => connection.destroy(error));
  socket.once("close", () => connection.destroy());
  return connection;
}
