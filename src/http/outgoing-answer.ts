import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { type AnswerHead, answerHead, hasNoBody } from "./answer-head.js";
import type { IncomingRequest } from "./incoming-request.js";

/** The connection that an answer goes out on. */
interface AnswerCarrier {
  /** The whole answer has been handed over. */
  answered(answer: OutgoingAnswer): void;
  /** From here on the socket is not the connection's. */
  handOver(): void;
}

/** How long an idle connection is kept is said a little shorter than it is: a request may cross its end. */
export const KEEP_ALIVE_MS = 65_000;
const KEEPS = `Connection: keep-alive\r\nKeep-Alive: timeout=${KEEP_ALIVE_MS / 1_000}\r\n\r\n`;
const ENDS = "Connection: close\r\n\r\n";
/** Up to this a body goes out in one piece with what is before it. */
const SMALL_BYTES = 8 * 1024;

type Framing = "none" | "length" | "chunked" | "until-close";

/**
 * The answer to one request. Emits `drain`, when there is room for more; `finish`, when all of it is handed over; and as the last, in any case, `close`,
 * unless its socket was handed over.
 */
export class OutgoingAnswer extends EventEmitter {
  statusCode = 200;
  readonly #carrier: AnswerCarrier;
  readonly #request: IncomingRequest;
  readonly #socket: Socket;
  #isLast: boolean;
  #more: string[] | undefined;
  #head: AnswerHead | undefined;
  #framing: Framing | undefined;
  /** What is still to come of a body of known length. */
  #left = 0;
  #isHeadOut = false;
  #isEnded = false;
  #isFinished = false;
  #isClosed = false;

  constructor(carrier: AnswerCarrier, request: IncomingRequest, isLast: boolean) {
    super();
    this.#carrier = carrier;
    this.#request = request;
    this.#socket = request.socket;
    this.#isLast = isLast;
  }

  /** The head has been written down, or is out: no other can come. */
  get headersSent(): boolean {
    return this.#head !== undefined;
  }

  get writableEnded(): boolean {
    return this.#isEnded;
  }

  get writableFinished(): boolean {
    return this.#isFinished;
  }

  /** Complete, or its connection has gone: nobody waits for it. */
  get destroyed(): boolean {
    return this.#isClosed || this.#socket.destroyed;
  }

  /** Nothing comes behind it on its connection. */
  get isLast(): boolean {
    return this.#isLast;
  }

  /** Ends the connection behind this answer. */
  beLast(): void {
    this.#isLast = true;
  }

  /** One more header, besides those of `writeHead`. */
  setHeader(name: string, value: string | number): void {
    this.#more ??= [];
    this.#more.push(name, String(value));
  }

  /** `headers`: a flat list of names and values, or values by their names. Throws CodedError `answer-malformed`. */
  writeHead(status: number, headers: readonly string[] | Readonly<Record<string, string | number>> = []): void {
    if (this.#head !== undefined) throw new Error("an answer has one head");
    const given = isList(headers) ? headers : flat(headers);
    this.#head = answerHead(status, this.#more === undefined ? given : [...this.#more, ...given]);
    this.statusCode = status;
  }

  /** Sends the head before there is anything of the body. */
  flushHeaders(): void {
    if (this.#isHeadOut || this.#isEnded) return;
    const text = this.#takeHead();
    if (text !== "") this.#socket.write(text, "latin1");
  }

  /** Returns false where it is better to wait for `drain`. */
  write(chunk: Buffer): boolean {
    if (this.#isEnded || this.#isClosed) return true;
    const head = this.#takeHead();
    if (!this.#counts(chunk.length)) return true;
    if (chunk.length === 0 || this.#framing === "none") return head === "" || this.#socket.write(head, "latin1");
    return this.#send(head, chunk, "\r\n");
  }

  end(chunk?: Buffer | string): void {
    if (this.#isEnded || this.#isClosed) return;
    const body = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    const head = this.#takeHead(body?.length ?? 0);
    this.#isEnded = true;
    if (!this.#counts(body?.length ?? 0)) return;
    if (this.#framing === "length" && this.#left > 0) {
      // Whatever came next would be read as the rest of it.
      this.destroy();
      return;
    }
    if (body !== undefined && body.length > 0 && this.#framing !== "none") this.#send(head, body, "\r\n0\r\n\r\n");
    else if (this.#framing === "chunked") this.#socket.write(`${head}0\r\n\r\n`, "latin1");
    else if (head !== "") this.#socket.write(head, "latin1");
    this.#isFinished = true;
    this.emit("finish");
    this.#carrier.answered(this);
  }

  /** Ends the connection: what is missing of the answer does not come. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** Hands the socket over: the connection speaks another protocol from here on. */
  handOver(): Socket {
    this.#isEnded = true;
    this.#carrier.handOver();
    return this.#socket;
  }

  /** From the connection: nothing more is sent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.emit("close");
  }

  /** False where there is more of the body than its head has said: then nothing more of it goes out. */
  #counts(bytes: number): boolean {
    if (this.#framing !== "length" || bytes <= this.#left) {
      this.#left -= bytes;
      return true;
    }
    this.destroy();
    return false;
  }

  /** The head in Latin-1, once; empty where it is out. `length`: of the body, where all of it is there. */
  #takeHead(length?: number): string {
    if (this.#isHeadOut) return "";
    this.#isHeadOut = true;
    this.#head ??= answerHead(this.statusCode, this.#more ?? []);
    const { status, lines, saysConnection } = this.#head;
    let more = "";
    if (hasNoBody(this.#request.method, status)) {
      this.#framing = "none";
    } else if (this.#head.length !== undefined) {
      this.#framing = "length";
      this.#left = this.#head.length;
    } else if (length !== undefined) {
      this.#framing = "length";
      this.#left = length;
      more = `Content-Length: ${length}\r\n`;
    } else if (this.#request.httpVersion === "1.1") {
      this.#framing = "chunked";
      more = "Transfer-Encoding: chunked\r\n";
    } else {
      // HTTP/1.0 knows no chunks.
      this.#framing = "until-close";
      this.#isLast = true;
    }
    // What is left of the request must not be read as the next one.
    if (!this.#request.complete) this.#isLast = true;
    if (saysConnection || status < 200) return `${lines}${more}\r\n`;
    return lines + more + (this.#isLast ? ENDS : KEEPS);
  }

  #send(head: string, chunk: Buffer, behind: string): boolean {
    const socket = this.#socket;
    const isChunked = this.#framing === "chunked";
    const before = isChunked ? `${head}${chunk.length.toString(16)}\r\n` : head;
    if (chunk.length <= SMALL_BYTES) {
      const text = before + chunk.toString("latin1");
      return socket.write(isChunked ? text + behind : text, "latin1");
    }
    if (before === "") return socket.write(chunk);
    socket.cork();
    socket.write(before, "latin1");
    let goesOn = socket.write(chunk);
    if (isChunked) goesOn = socket.write(behind, "latin1");
    socket.uncork();
    return goesOn;
  }
}

function isList(headers: object): headers is readonly string[] {
  return Array.isArray(headers);
}

function flat(headers: Readonly<Record<string, string | number>>): string[] {
  return Object.entries(headers).flatMap(([name, value]) => [name, String(value)]);
}
