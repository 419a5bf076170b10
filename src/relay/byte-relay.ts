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
  readonly #touched: () => void;
  readonly #counts: [number, number] = [0, 0];
  #error: string | undefined;

  /** `touched` is called for each piece that comes, from either side. */
  constructor(caller: End, service: End, touched: () => void = () => undefined) {
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

  #pump(from: 0 | 1, to: 0 | 1): void {
    const source = this.#ends[from].stream;
    const sink = this.#ends[to].stream;
    const goOn = () => source.resume();
    source.on("data", (chunk: Buffer) => {
      this.#counts[from] += chunk.length;
      this.#touched();
      if (sink.write(chunk)) return;
      source.pause();
      sink.once("drain", goOn);
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
