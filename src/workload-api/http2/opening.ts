import type { Socket } from "node:net";
import { createRequestFrames, type RequestFrames } from "./request-frames.js";

/** A connection may send so much before its first request is complete; with more it goes on by the slow path. */
const OPENING_BYTES = 64 * 1024;

/** Where an opened connection goes on. */
export interface Opened {
  /** The socket is as if nobody had read from it. */
  asItIs(): void;
  /** `received` came already; it and all that follows goes through `frames`. */
  rewritten(frames: RequestFrames, received: Buffer): void;
}

/**
 * Reads a connection up to its first request and calls one of `opened`: as it is unless the request's `:authority` is a path. One whose first request
 * has none never has one in those after: clients name the same authority on a connection.
 *
 * Most clients send no request before the server's SETTINGS (RFC 9113 §3.4 lets them wait), and the server that would send them is not there yet. Such a
 * client is sent `settings`; its acknowledgement is taken out, because the server behind knows only of its own, which follow and may (§6.5).
 * What cannot wait (a PING, too many bytes) goes on through the rewriter, which is right for any client and costs more.
 */
export function readOpening(socket: Socket, settings: Buffer, opened: Opened): void {
  const frames = createRequestFrames();
  const received: Buffer[] = [];
  let bytes = 0;
  let greeted = false;

  function read(chunk: Buffer): void {
    const passed = frames.pass(chunk);
    received.push(passed);
    bytes += passed.length;
    const unchanged = frames.firstRequest === "unchanged" && !frames.awaitsAcknowledgement;
    if (unchanged) {
      leave();
      socket.unshift(Buffer.concat([...received, frames.release()]));
      opened.asItIs();
    } else if (frames.firstRequest === "changed" || frames.needsServer || bytes > OPENING_BYTES) {
      leave();
      opened.rewritten(frames, Buffer.concat(received));
    } else if (!greeted && frames.prefaceRead) {
      greeted = true;
      frames.expectAcknowledgement();
      socket.write(settings);
    }
  }

  function leave(): void {
    socket.off("data", read);
    socket.off("error", ignore);
    socket.pause();
  }

  socket.on("data", read);
  // The socket closes after it, which is all there is to know of a connection without a request.
  socket.on("error", ignore);
}

function ignore(): void {}
