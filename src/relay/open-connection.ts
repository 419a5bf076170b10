import { Refusal } from "../http/refusal.js";
import type { Clock } from "../platform/clock.js";
import { ByteRelay, type End, type RelayedBytes } from "./byte-relay.js";
import type { TcpExchange } from "./tcp-exchange.js";

/** The longest delay a timer takes; what lasts longer is looked at again then. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** A connection of a tcp service on one leg, from its accept to its end: it can be broken off at any moment of that. */
export class OpenConnection {
  readonly exchange: TcpExchange;
  readonly #caller: End;
  readonly #clock: Clock;
  #relay: ByteRelay | undefined;
  #brokenOff: string | undefined;
  #touchedAt = 0;
  readonly #timers = new Set<() => void>();

  constructor(exchange: TcpExchange, caller: End, clock: Clock) {
    this.exchange = exchange;
    this.#caller = caller;
    this.#clock = clock;
    caller.stream.once("close", () => {
      for (const cancel of this.#timers) cancel();
    });
  }

  /** It was broken off, or the caller has closed it. */
  get isOver(): boolean {
    return this.#brokenOff !== undefined || this.#caller.stream.destroyed;
  }

  /** Throws Refusal `connection-closed` where it is over: what was being reached for it is needed no more. */
  requireOpen(): void {
    if (!this.isOver) return;
    const why = this.#brokenOff ?? "the caller closed it";
    throw new Refusal("connection-closed", 503, `the connection was closed before its service was reached: ${why}`);
  }

  /** Ends it at once, visibly: a stream that is cut must not look complete. */
  breakOff(reason: string): void {
    this.#brokenOff ??= reason;
    if (this.#relay === undefined) this.#caller.reset();
    else this.#relay.breakOff(reason);
  }

  /** Breaks it off at `time`, in milliseconds since the epoch. */
  breakOffAt(time: number, reason: string): void {
    this.#when(
      () => time,
      () => this.breakOff(reason),
    );
  }

  /** Passes bytes until both sides have ended, or nothing has come for `idleSeconds`. */
  relayTo(service: End, idleSeconds: number | undefined): Promise<RelayedBytes> {
    this.#touchedAt = this.#clock.now();
    this.#relay = new ByteRelay(this.#caller, service, () => {
      this.#touchedAt = this.#clock.now();
    });
    if (this.#brokenOff !== undefined) this.#relay.breakOff(this.#brokenOff);
    if (idleSeconds !== undefined) {
      this.#when(
        () => this.#touchedAt + idleSeconds * 1_000,
        () => this.breakOff("idle-timeout"),
      );
    }
    return this.#relay.over;
  }

  /** Calls `then` once the moment has come; it may move on meanwhile. */
  #when(moment: () => number, then: () => void): void {
    const left = moment() - this.#clock.now();
    if (left <= 0) {
      then();
      return;
    }
    const cancel = this.#clock.after(Math.min(left, MAX_DELAY_MS), () => {
      this.#timers.delete(cancel);
      this.#when(moment, then);
    });
    this.#timers.add(cancel);
  }
}
