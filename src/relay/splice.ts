import type { Duplex } from "node:stream";

/** One end of a connection that carries bytes, and those that have been read from it already. */
export interface End {
  readonly socket: Duplex;
  readonly head: Buffer;
}

/**
 * Carries bytes both ways between two ends until both have closed: held back where the other side does not read, each direction ended by itself.
 * An end that breaks off takes the other along. Never rejects.
 */
export async function splice(one: End, other: End): Promise<void> {
  await Promise.all([carry(one, other.socket), carry(other, one.socket)]);
}

function carry({ socket, head }: End, to: Duplex): Promise<void> {
  socket.allowHalfOpen = true;
  socket.on("error", () => socket.destroy());
  if (head.length > 0) socket.unshift(head);
  socket.pipe(to);
  return new Promise((resolve) => {
    const closed = () => {
      // What came in before an orderly end may still be on its way out on the other side.
      if (!socket.readableEnded || !socket.writableFinished) to.destroy();
      resolve();
    };
    if (socket.destroyed) closed();
    else socket.once("close", closed);
  });
}
