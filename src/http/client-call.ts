import type { AnswerHandler, AnswerSteering, OutgoingRequest } from "./outgoing-call.js";

/** The connection that a call is on. */
interface CallCarrier {
  pauseReading(): void;
  resumeReading(): void;
  /** Ends a call of which nobody wants to hear any more. */
  drop(call: OutgoingCall): void;
}

/** A request and its answer. */
export class OutgoingCall implements AnswerSteering {
  readonly request: OutgoingRequest;
  readonly #handler: AnswerHandler;
  /** While something of it is on the way there. */
  #connection: CallCarrier | undefined;
  #rawHeaders: readonly string[] = [];
  #isPaused = false;
  #isOver = false;
  #isAborted = false;
  /** What came while it was paused. */
  #backlog: Buffer[] | undefined;
  #end: "complete" | Error | undefined;

  constructor(request: OutgoingRequest, handler: AnswerHandler) {
    this.request = request;
    this.#handler = handler;
  }

  get aborted(): boolean {
    return this.#isAborted;
  }

  get rawHeaders(): readonly string[] {
    return this.#rawHeaders;
  }

  /** False where who asked for it does not want it any more: then nothing goes out. */
  begin(connection: CallCarrier): boolean {
    this.#handler.onRequestStart(this);
    if (this.#isOver) return false;
    this.#connection = connection;
    return true;
  }

  head(status: number, rawHeaders: readonly string[]): void {
    if (this.#isOver) return;
    this.#rawHeaders = rawHeaders;
    this.#handler.onResponseStart(this, status);
  }

  data(chunk: Buffer): void {
    if (this.#isOver) return;
    if (this.#isPaused) {
      this.#backlog ??= [];
      this.#backlog.push(chunk);
      return;
    }
    this.#handler.onResponseData(this, chunk);
  }

  /** All of the answer has come: its connection is another's. */
  complete(): void {
    this.#connection = undefined;
    if (this.#isOver) return;
    if (this.#isPaused) {
      this.#end = "complete";
      return;
    }
    this.#isOver = true;
    try {
      this.#handler.onResponseEnd(this);
    } catch (thrown) {
      this.#handler.onResponseError(this, errorOf(thrown));
    }
  }

  /** The answer will not be complete. What has come of it is told first. */
  fail(error: Error): void {
    this.#connection = undefined;
    if (this.#isOver) return;
    if (this.#isPaused) {
      this.#end ??= error;
      return;
    }
    this.#isOver = true;
    this.#handler.onResponseError(this, error);
  }

  pause(): void {
    this.#isPaused = true;
    this.#connection?.pauseReading();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    const backlog = this.#backlog ?? [];
    this.#backlog = undefined;
    for (let index = 0; index < backlog.length; index += 1) {
      try {
        this.data(backlog[index] as Buffer);
      } catch (thrown) {
        this.abort(errorOf(thrown));
        return;
      }
      // Paused again by that: the rest is before whatever comes.
      if (this.#isPaused) {
        this.#backlog = backlog.slice(index + 1);
        return;
      }
    }
    const end = this.#end;
    this.#end = undefined;
    if (end === "complete") this.complete();
    else if (end !== undefined) this.fail(end);
    else this.#connection?.resumeReading();
  }

  abort(reason: Error): void {
    if (this.#isOver) return;
    this.#isAborted = true;
    this.#isOver = true;
    const connection = this.#connection;
    this.#connection = undefined;
    connection?.drop(this);
    this.#handler.onResponseError(this, reason);
  }
}

export function errorOf(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
