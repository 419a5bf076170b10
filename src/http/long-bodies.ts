import type { EventEmitter } from "node:events";
import type { Clock } from "../platform/clock.js";
import { Refusal } from "./refusal.js";

/** How long a body may wait for its place: all that have come by then are worked off in less, unless they are sent to keep others out. */
const WAIT_MS = 10_000;
/** So many bodies of one caller may wait at a time. */
const MOST_WAITING = 16;

/** Whose body it is: who is asked for in turn, and what says `close` when the caller has gone. */
export interface Sender {
  readonly caller: string;
  readonly connection: Pick<EventEmitter, "once" | "off">;
  readonly clock: Clock;
}

/**
 * The place where long bodies are read: one at a time. What has been read of one is alive while it is decided on, and memory that is alive keeps the event
 * loop when it is tidied up; those that wait are bytes. Callers have the place in turn, however many bodies one of them sends.
 */
export class LongBodies {
  #taken = false;
  /** The one whose turn is next comes first. */
  readonly #waiting = new Map<string, (() => void)[]>();

  /**
   * What `read` gives, once it is this body's turn. Rejects with what it rejects with, and with Refusal: `long-bodies` (503) where too many wait, or for too
   * long; `caller-gone`.
   */
  async read<Value>(sender: Sender, read: () => Promise<Value>): Promise<Value> {
    if (this.#taken) await this.#place(sender);
    this.#taken = true;
    try {
      return await read();
    } finally {
      this.#next();
    }
  }

  #place({ caller, connection, clock }: Sender): Promise<void> {
    const queue = this.#waiting.get(caller) ?? [];
    if (queue.length >= MOST_WAITING) {
      throw new Refusal("long-bodies", 503, `${MOST_WAITING} long bodies of yours wait to be read already`);
    }
    this.#waiting.set(caller, queue);
    return new Promise((resolve, reject) => {
      const leave = () => {
        cancel();
        connection.off("close", gone);
      };
      const enter = () => {
        leave();
        resolve();
      };
      const drop = (refusal: Refusal) => {
        leave();
        queue.splice(queue.indexOf(enter), 1);
        if (queue.length === 0) this.#waiting.delete(caller);
        reject(refusal);
      };
      const gone = () => drop(new Refusal("caller-gone", 400, "the caller went away before its body was read"));
      const cancel = clock.after(WAIT_MS, () =>
        drop(new Refusal("long-bodies", 503, "too many long bodies wait to be read: try again")),
      );
      connection.once("close", gone);
      queue.push(enter);
    });
  }

  #next(): void {
    const [caller, queue] = this.#waiting.entries().next().value ?? [];
    const enter = queue?.shift();
    this.#taken = enter !== undefined;
    if (caller === undefined || queue === undefined) return;
    // Whoever has had a turn comes last.
    this.#waiting.delete(caller);
    if (queue.length > 0) this.#waiting.set(caller, queue);
    enter?.();
  }
}

/** Of this process: it has one event loop. */
export const longBodies = new LongBodies();
