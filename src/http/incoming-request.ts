import type { Socket } from "node:net";
import { Readable } from "node:stream";
import { headerOf, type RawHeaders } from "./request-headers.js";

/** What is told of a body: its pieces, and an end or that it broke off. */
export interface BodyReader {
  data(chunk: Buffer): void;
  end(): void;
  failed(error: Error): void;
}

/** What the connection of a request does for its body. */
interface BodyCarrier {
  /** Somebody wants the body: a caller that waits for that is told (RFC 9110 §10.1.1). */
  bodyIsWanted(request: IncomingRequest): void;
  pauseReading(): void;
  resumeReading(): void;
}

/** So much of a body is kept for who has not asked for it yet. */
const KEPT_BYTES = 16 * 1024;

/** A request as it came, its body as far as it has come. */
export class IncomingRequest {
  readonly method: string;
  /** The request target, as it stands in the first line. */
  readonly url: string;
  /** `1.1`; also what is none of ours, like `2.0`. */
  readonly httpVersion: string;
  /** Names and values, in order. */
  readonly rawHeaders: RawHeaders;
  readonly socket: Socket;
  /** By its headers a body follows (RFC 9112 §6.3). */
  readonly hasBody: boolean;
  readonly #carrier: BodyCarrier;
  /** What came before somebody read. */
  #kept: Buffer[] | undefined;
  #keptBytes = 0;
  #reader: BodyReader | undefined;
  #isDropped = false;
  #isComplete = false;
  #error: Error | undefined;

  constructor(
    carrier: BodyCarrier,
    socket: Socket,
    head: { method: string; url: string; httpVersion: string; rawHeaders: RawHeaders },
  ) {
    this.#carrier = carrier;
    this.socket = socket;
    this.method = head.method;
    this.url = head.url;
    this.httpVersion = head.httpVersion;
    this.rawHeaders = head.rawHeaders;
    this.hasBody = announcesBody(head.rawHeaders);
  }

  /** All of it has come. */
  get complete(): boolean {
    return this.#isComplete;
  }

  /** Somebody reads, or has read, its body. */
  get isRead(): boolean {
    return this.#reader !== undefined || this.#isDropped;
  }

  /** It broke off. */
  get error(): Error | undefined {
    return this.#error;
  }

  /** Tells `reader` what has come of the body, and what comes. Once. */
  read(reader: BodyReader): void {
    if (this.#reader !== undefined) throw new Error("the body of a request is read once");
    this.#reader = reader;
    const kept = this.#kept ?? [];
    this.#kept = undefined;
    for (const chunk of kept) this.#reader?.data(chunk);
    if (this.#error !== undefined) this.#reader?.failed(this.#error);
    else if (this.#isComplete) this.#reader?.end();
    else {
      this.#carrier.bodyIsWanted(this);
      this.#carrier.resumeReading();
    }
  }

  /** The body, read as fast as it is taken. */
  stream(): Readable {
    const stream = new Readable({ read: () => this.resume(), autoDestroy: false });
    // It may break off before anybody listens, and whoever reads it late is told otherwise that its caller has gone.
    stream.on("error", () => undefined);
    this.read({
      data: (chunk) => {
        if (!stream.push(chunk)) this.pause();
      },
      end: () => stream.push(null),
      failed: (error) => stream.destroy(error),
    });
    return stream;
  }

  pause(): void {
    if (!this.#isComplete) this.#carrier.pauseReading();
  }

  resume(): void {
    if (!this.#isComplete && this.#error === undefined) this.#carrier.resumeReading();
  }

  /** Nobody wants what still comes of the body. */
  drop(): void {
    this.#isDropped = true;
    this.#kept = undefined;
    this.#reader = undefined;
  }

  /** From the connection: a piece of the body. */
  push(chunk: Buffer): void {
    if (this.#isDropped) return;
    if (this.#reader !== undefined) {
      this.#reader.data(chunk);
      return;
    }
    this.#kept ??= [];
    this.#kept.push(chunk);
    this.#keptBytes += chunk.length;
    if (this.#keptBytes >= KEPT_BYTES) this.#carrier.pauseReading();
  }

  /** From the connection: the body is complete. */
  end(): void {
    this.#isComplete = true;
    this.#reader?.end();
  }

  /** From the connection: the rest of the body does not come. */
  fail(error: Error): void {
    if (this.#isComplete || this.#error !== undefined) return;
    this.#error = error;
    this.#reader?.failed(error);
  }
}

function announcesBody(raw: RawHeaders): boolean {
  if (headerOf(raw, "transfer-encoding") !== undefined) return true;
  const length = headerOf(raw, "content-length");
  return length !== undefined && length !== "0";
}
