import type { Socket } from "node:net";

/** What has come by then was on its way when writing failed. */
const HEAR_OUT_MS = 1_000;

/** Who waits for an answer on a socket. */
interface Listener {
  /** Something is asked and not answered. */
  readonly awaitsAnswer: boolean;
  /** Some of the answer has come. */
  readonly hearsAnswer: boolean;
  /** Nothing more can be written. */
  stopWriting(): void;
}

/**
 * A server may refuse a long body before it has read it, with an answer and the end of the connection: then writing fails while the answer waits to be read. Node
 * ends a socket at once when that happens; `socket` is read on, until its other side ends too.
 */
export function hearOut(socket: Socket, listener: Listener): void {
  const end = socket.destroy.bind(socket);
  let isWaiting = false;
  socket.destroy = (error?: Error): Socket => {
    if (!hasFailedToWrite(error)) return end(error);
    if (isWaiting) return socket;
    if (!listener.awaitsAnswer) return end(error);
    isWaiting = true;
    listener.stopWriting();
    const late = setTimeout(() => {
      if (!listener.hearsAnswer) end(error);
    }, HEAR_OUT_MS);
    socket.once("close", () => clearTimeout(late));
    return socket;
  };
}

function hasFailedToWrite(error: (Error & { readonly syscall?: string; readonly code?: string }) | undefined): boolean {
  return error?.syscall === "write" && (error.code === "EPIPE" || error.code === "ECONNRESET");
}
