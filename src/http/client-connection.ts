import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import { CodedError } from "../coded-error.js";
import { createHttpParser, type HttpParser, type ParsedHead, type ParserEvents } from "../platform/http-parser.js";
import { errorOf, type OutgoingCall } from "./client-call.js";
import { hearOut } from "./hear-out.js";
import type { OutgoingRequest } from "./outgoing-call.js";
import { type Framing, requestHead } from "./request-line.js";

const MAX_HEADER_BYTES = 16 * 1024;
const READ_BYTES = 64 * 1024;

/** How a socket hands on what it reads without a stream of buffers: the option `onread` of `net.connect` and `tls.connect`. */
export interface ReadsInto {
  readonly buffer: Uint8Array;
  callback(bytes: number): boolean;
}

/** What a connection tells its pool. */
export interface ConnectionOwner {
  /** An answer is complete, and the next request may go out. */
  idle(connection: ClientConnection, keepAliveSeconds: number | undefined): void;
  closed(connection: ClientConnection): void;
}

/** One connection to a server that speaks HTTP/1.1: one request at a time, the next when the answer is complete. */
export class ClientConnection implements ParserEvents {
  readonly #owner: ConnectionOwner;
  readonly #parser: HttpParser = createHttpParser("answers", MAX_HEADER_BYTES, this);
  #socket: Socket | undefined;
  #error: Error | undefined;
  #call: OutgoingCall | undefined;
  /** All of the request is written. */
  #isSent = false;
  #stopBody: (() => void) | undefined;
  /** Of a head that came in pieces. */
  #headers: string[] = [];
  #isInterim = false;
  #keepsAlive = false;
  #keepAliveSeconds: number | undefined;
  /** The answer is complete; who gets the connection next waits until all that came with it has been looked at. */
  #isComplete = false;
  #isSpoiled = false;
  /** When an answer must have begun, or an idle connection ends: in milliseconds of `performance.now()`; the pool looks. */
  deadline = Number.POSITIVE_INFINITY;

  constructor(owner: ConnectionOwner) {
    this.#owner = owner;
  }

  /** For the socket that becomes `open`. */
  readsInto(): ReadsInto {
    const buffer = new Uint8Array(READ_BYTES);
    return {
      buffer,
      callback: (bytes) => {
        this.#read(buffer.subarray(0, bytes));
        return true;
      },
    };
  }

  /** The socket is connected, and whoever must be verified at its other end is. */
  open(socket: Socket): void {
    this.#socket = socket;
    socket.on("error", (error) => {
      this.#error = error;
    });
    socket.once("end", () => this.#ended());
    socket.once("close", () => this.#closed());
    hearOut(socket, this);
    if (socket.closed) setImmediate(() => this.#closed());
    else if (this.#isSpoiled) socket.destroy();
  }

  get awaitsAnswer(): boolean {
    return this.#call !== undefined && !this.#isSpoiled && !this.#isComplete;
  }

  /** The head of an answer has come. */
  get hearsAnswer(): boolean {
    return this.#call !== undefined && this.deadline === Number.POSITIVE_INFINITY;
  }

  stopWriting(): void {
    this.#stopBody?.();
  }

  get isBusy(): boolean {
    return this.#call !== undefined;
  }

  /** Something came that nobody asked for, or the socket has closed. */
  get isUsable(): boolean {
    return !this.#isSpoiled && this.#socket?.writable === true;
  }

  /** Sends the request of `call`, once it has begun. Returns false where it did not, and the connection is as idle as before. */
  send(call: OutgoingCall, answerTimeoutMs: number): boolean {
    let head: ReturnType<typeof requestHead>;
    try {
      if (!call.begin(this)) return false;
      head = requestHead(call.request);
    } catch (thrown) {
      call.fail(errorOf(thrown));
      return false;
    }
    this.#call = call;
    this.#isComplete = false;
    this.deadline = performance.now() + answerTimeoutMs;
    this.#write(call.request.body, head, answerTimeoutMs);
    return true;
  }

  #write(
    body: OutgoingRequest["body"],
    { text, framing }: { text: string; framing: Framing },
    timeoutMs: number,
  ): void {
    const socket = this.#socket as Socket;
    this.#isSent = body === null || Buffer.isBuffer(body);
    if (body === null) {
      socket.write(text, "latin1");
    } else if (Buffer.isBuffer(body)) {
      socket.cork();
      socket.write(text, "latin1");
      socket.write(body);
      socket.uncork();
    } else {
      socket.write(text, "latin1");
      this.#stopBody = this.#writeBody(socket, body, framing, timeoutMs);
    }
  }

  /** Writes what comes, as much as goes. Returns how to stop that; the rest of the body is left to whoever it is from. */
  #writeBody(socket: Socket, body: Readable, framing: Framing, timeoutMs: number): () => void {
    let left = typeof framing === "object" ? framing.bytes : undefined;
    const data = (chunk: Buffer) => {
      if (left !== undefined) {
        left -= chunk.length;
        if (left < 0) return this.#fail(new CodedError("body-length", "the body is longer than was said of it"));
      }
      this.deadline = performance.now() + timeoutMs;
      socket.cork();
      if (left === undefined) socket.write(`${chunk.length.toString(16)}\r\n`, "latin1");
      const goesOn = socket.write(chunk);
      if (left === undefined) socket.write("\r\n", "latin1");
      socket.uncork();
      if (!goesOn) body.pause();
    };
    const drained = () => void body.resume();
    const end = () => {
      stop();
      if (left !== undefined && left > 0) {
        this.#fail(new CodedError("body-length", "the body is shorter than was said of it"));
        return;
      }
      if (left === undefined) socket.write("0\r\n\r\n", "latin1");
      this.#isSent = true;
    };
    const brokeOff = (error?: Error) => {
      stop();
      this.#fail(error ?? new CodedError("body-broken", "the body of the request broke off"));
    };
    const closed = () => {
      if (!body.readableEnded) brokeOff();
    };
    const stop = () => {
      this.#stopBody = undefined;
      socket.off("drain", drained);
      body.off("data", data).off("end", end).off("close", closed).off("error", brokeOff);
      // Whatever becomes of what is left, it is not an error that nobody listens for.
      body.on("error", () => undefined);
    };
    socket.on("drain", drained);
    body.on("data", data).once("end", end).once("close", closed).once("error", brokeOff);
    return () => {
      stop();
      body.pause();
    };
  }

  pauseReading(): void {
    this.#socket?.pause();
  }

  resumeReading(): void {
    this.#socket?.resume();
  }

  /** Ends a call of which nobody wants to hear any more. */
  drop(call: OutgoingCall): void {
    if (this.#call === call) this.destroy();
  }

  /** Ends the connection; a call that is under way fails with `reason` when it has closed. */
  destroy(reason: Error = new CodedError("connection-closed", "the connection was closed")): void {
    this.#isSpoiled = true;
    this.#error ??= reason;
    this.#stopBody?.();
    this.#socket?.destroy();
  }

  #fail(error: Error): void {
    this.#isSpoiled = true;
    this.#socket?.destroy();
    this.#stopBody?.();
    const call = this.#call;
    this.#call = undefined;
    call?.fail(error);
  }

  #read(bytes: Uint8Array): void {
    if (this.#isSpoiled) return;
    // Before there is anything to answer, or behind an answer.
    if (this.#call === undefined || this.#socket === undefined) {
      this.destroy();
      return;
    }
    this.#parse(bytes);
  }

  /** Without bytes: nothing more comes. */
  #parse(bytes?: Uint8Array): void {
    let error: Error | undefined;
    try {
      const result = bytes === undefined ? this.#parser.finish() : this.#parser.execute(bytes);
      if (typeof result === "object") {
        error = new CodedError(result.code, `what it answers is not HTTP/1.1 (${result.code})`, { cause: result });
      }
    } catch (thrown) {
      error = errorOf(thrown);
    }
    if (this.#isComplete) {
      // Whatever is wrong came behind the answer.
      if (error !== undefined) this.#isSpoiled = true;
      this.#answered();
    } else if (error !== undefined) {
      this.#fail(error);
    }
  }

  #ended(): void {
    if (this.#call === undefined) return;
    // A body without a length ends with its connection (RFC 9112 §6.3).
    this.#parse();
  }

  #closed(): void {
    this.#fail(this.#error ?? new CodedError("ECONNRESET", "the other side closed the connection"));
    this.#owner.closed(this);
    // Never from within it.
    setImmediate(closeParser, this.#parser);
  }

  onBegin(): void {
    if (this.#isComplete || this.#call === undefined) this.#isSpoiled = true;
  }

  onHeaders(headers: readonly string[]): void {
    this.#headers.push(...headers);
  }

  onHead({ headers, status, isUpgrade, keepsAlive }: ParsedHead): 0 | 1 {
    const rawHeaders = headers ?? this.#headers;
    this.#headers = [];
    const call = this.#call;
    if (call === undefined || this.#isComplete) return SKIP_BODY;
    if (isUpgrade || status === 101) {
      throw new CodedError("upgrade-unasked", "it switched to a protocol that was not asked for");
    }
    this.#isInterim = status < 200;
    if (this.#isInterim) return 0;
    this.deadline = Number.POSITIVE_INFINITY;
    this.#keepsAlive = keepsAlive;
    this.#keepAliveSeconds = keepsAlive ? keepAliveOf(rawHeaders) : undefined;
    call.head(status, rawHeaders);
    return call.request.method === "HEAD" ? SKIP_BODY : 0;
  }

  onBody(chunk: Buffer): void {
    if (!this.#isComplete) this.#call?.data(chunk);
  }

  onComplete(): void {
    // Trailers: none was asked for.
    this.#headers = [];
    if (this.#isInterim) this.#isInterim = false;
    else if (this.#call !== undefined) this.#isComplete = true;
  }

  #answered(): void {
    const call = this.#call;
    this.#isComplete = false;
    this.#call = undefined;
    // An answer before the end of the request: what is left of that would be read as the next one.
    const isReusable = this.#keepsAlive && this.#isSent && !this.#isSpoiled && this.#socket?.writable === true;
    if (!isReusable) {
      this.#isSpoiled = true;
      this.#stopBody?.();
      this.#socket?.destroy();
    }
    call?.complete();
    if (!isReusable) return;
    this.#socket?.resume();
    this.#owner.idle(this, this.#keepAliveSeconds);
  }
}

const SKIP_BODY = 1;
const HINT = /(?:^|[,;\s])timeout\s*=\s*"?(\d{1,9})/i;

/** How long the server says that it keeps an idle connection. */
function keepAliveOf(headers: readonly string[]): number | undefined {
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index];
    if (name?.length !== 10 || name.toLowerCase() !== "keep-alive") continue;
    const hint = HINT.exec(headers[index + 1] ?? "")?.[1];
    if (hint !== undefined) return Number(hint);
  }
  return undefined;
}

function closeParser(parser: HttpParser): void {
  parser.close();
}
