import type { Duplex } from "node:stream";
import { codeOf } from "../coded-error.js";

/** One end of a relayed connection. */
export interface End {
  readonly stream: Duplex;
  /** Breaks the connection off so that the other side sees that it was: a reset where the transport has one. */
  reset(): void;
}

/** What became of a relayed connection. */
export interface RelayedBytes {
  /** From the caller to the service. */
  readonly sent: number;
  readonly received: number;
  /** Why it broke off; undefined where both sides ended it. */
  readonly error: string | undefined;
  /** How long bytes could pass. */
  readonly openMs: number;
}

/**
 * Passes bytes both ways until both sides have ended. Each way has back-pressure and an end of its own (half-close); a side that breaks off breaks
 * the other one off. Bytes that came before are the first ones.
 */
export class ByteRelay {
  readonly over: Promise<RelayedBytes>;
  readonly #ends: readonly [End, End];
  readonly #touched: (from: 0 | 1, chunk: Buffer) => void;
  readonly #counts: [number, number] = [0, 0];
  #error: string | undefined;
  #finished = false;

  /** `touched` is called for each piece that has come and goes on, from the caller (0) or the service (1). */
  constructor(caller: End, service: End, touched: (from: 0 | 1, chunk: Buffer) => void = () => undefined) {
    const openedAt = performance.now();
    this.#ends = [caller, service];
    this.#touched = touched;
    for (const { stream } of this.#ends) stream.allowHalfOpen = true;
    const closed = this.#ends.map(
      ({ stream }) => new Promise<void>((resolve) => (stream.closed ? resolve() : stream.once("close", resolve))),
    );
    this.over = Promise.all(closed).then(() => {
      const [sent, received] = this.#counts;
      return { sent, received, error: this.#error, openMs: performance.now() - openedAt };
    });
    this.#pump(0, 1);
    this.#pump(1, 0);
    if (caller.stream.destroyed || service.stream.destroyed) this.breakOff("cut");
  }

  /** Breaks both sides off. The first reason counts. */
  breakOff(error: string): void {
    this.#error ??= error;
    for (const end of this.#ends) end.reset();
  }

  /** Ends both sides in order, the caller and the service each with its last bytes. What still comes from them goes nowhere. */
  finish(error: string, last: readonly [Buffer, Buffer]): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#error ??= error;
    for (const side of [0, 1] as const) {
      const { stream } = this.#ends[side];
      if (stream.writable) stream.end(last[side]);
      stream.resume();
    }
  }

  #pump(from: 0 | 1, to: 0 | 1): void {
    const source = this.#ends[from].stream;
    const sink = this.#ends[to].stream;
    const goOn = () => source.resume();
    source.on("data", (chunk: Buffer) => {
      if (this.#finished) return;
      this.#counts[from] += chunk.length;
      const goesOn = sink.write(chunk);
      if (!goesOn) {
        source.pause();
        sink.once("drain", goOn);
      }
      this.#touched(from, chunk);
    });
    goOn();
    // Who has nothing to say may have ended before anybody listened.
    if (source.readableEnded) sink.end();
    else source.once("end", () => sink.end());
    source.once("error", (error) => this.breakOff(`${from === 0 ? "caller" : "service"}-broke-off: ${codeOf(error)}`));
    source.once("close", () => {
      // Whoever is at the other end closes by an end or an error: without either it was closed here.
      if (!source.readableEnded || !source.writableFinished) this.breakOff("cut");
    });
  }
}
