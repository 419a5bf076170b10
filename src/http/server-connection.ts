import type { Socket } from "node:net";
import { CodedError, codeOf } from "../coded-error.js";
import {
  createHttpParser,
  DirectReading,
  type HttpParser,
  type ParsedHead,
  type ParserEvents,
  startAnew,
} from "../platform/http-parser.js";
import { errorOf } from "./client-call.js";
import { drainAndClose, endWith } from "./connection-end.js";
import { IncomingRequest } from "./incoming-request.js";
import { KEEP_ALIVE_MS, OutgoingAnswer } from "./outgoing-answer.js";
import type { RefusalCode } from "./refusal.js";
import { headerOf } from "./request-headers.js";
import { MAX_HEADER_BYTES, NO_FORWARD_PROXY, TOO_SLOW, type Unreadable, unreadableBy } from "./unreadable.js";

/** How long a head may take to come, from its first byte; of the first one from the start of its connection. */
const HEAD_MS = 10_000;
/** Longer than is said: a request may cross the end. */
const IDLE_MS = KEEP_ALIVE_MS + 1_000;

/** What a connection tells its listener. */
export interface ServerOwner {
  /** True once no more requests are wanted: the answer under way is the last. */
  readonly isDraining: boolean;
  /** True for a request that changes the protocol of its connection, if it is granted: nothing behind its head is read as HTTP. */
  changesProtocol(request: IncomingRequest): boolean;
  /** A request whose turn it is. `behind`: what has come behind the head of one that changes the protocol. */
  request(request: IncomingRequest, answer: OutgoingAnswer, behind: Buffer | undefined): void;
  /** What came is no request. The caller is told, and the connection ended. */
  refused(socket: Socket, code: RefusalCode, reason: string): void;
}

interface Arrived {
  readonly request: IncomingRequest;
  readonly keepsAlive: boolean;
  readonly behind: Buffer | undefined;
}

/** One connection of a caller that speaks HTTP/1.1: its requests are answered one after the other, in their order. */
export class ServerConnection implements ParserEvents {
  readonly #socket: Socket;
  readonly #owner: ServerOwner;
  readonly #parser: HttpParser = createHttpParser("requests", MAX_HEADER_BYTES, this);
  readonly #reading: DirectReading;
  /** Parsed, and not yet begun. */
  readonly #arrived: Arrived[] = [];
  /** The request whose body comes. */
  #incoming: IncomingRequest | undefined;
  #current: { readonly request: IncomingRequest; readonly answer: OutgoingAnswer } | undefined;
  /** Of a head that came in pieces. */
  #headers: string[] = [];
  #url = "";
  #isInHead = false;
  #changing: IncomingRequest | undefined;
  /** It asks for another protocol and is answered in this one (RFC 9110 §7.8): the parser stops behind it, and starts anew. */
  #stopsBehind: IncomingRequest | undefined;
  #hasStopped = false;
  #unreadable: Unreadable | undefined;
  /** Nothing that comes is read any more. */
  #isDeaf = false;
  #isWorking = false;
  #isPaused = false;
  #isHandedOver = false;
  /** When its head must have come, or it must have asked something; `performance.now()`. */
  #deadline = performance.now() + HEAD_MS;
  readonly #onData = (chunk: Buffer) => this.#read(chunk);
  readonly #onEnd = () => this.#ended();
  readonly #onDrain = () => this.#drained();

  constructor(socket: Socket, owner: ServerOwner) {
    this.#socket = socket;
    this.#owner = owner;
    socket.on("error", () => socket.destroy());
    socket.on("end", this.#onEnd);
    socket.on("drain", this.#onDrain);
    socket.once("close", () => this.#closed());
    // What was read before.
    socket.on("data", this.#onData);
    this.#reading = new DirectReading(this.#parser, socket);
  }

  /** Ends what has waited too long. `now`: of `performance.now()`. */
  look(now: number): void {
    if (now < this.#deadline || this.#current !== undefined || this.#isDeaf) return;
    // Who has said nothing has asked for nothing: many clients open connections that they do not use.
    if (this.#isInHead) this.#refuse(TOO_SLOW);
    else this.#socket.destroy();
  }

  /** Ends it when what runs on it is over, at once where nothing does. */
  drain(): void {
    if (this.#isHandedOver) return;
    if (this.#current !== undefined) this.#current.answer.beLast();
    else if (!this.#isInHead) this.#endAfterLast();
  }

  #read(chunk: Buffer): void {
    if (!this.#isDeaf) this.onExecuted(this.#parser.execute(chunk), chunk);
  }

  /** All of `chunk`, or what the parser has at hand, was read, as far as it could be. */
  onExecuted(read: number | (Error & { readonly code: string }), chunk?: Buffer): void {
    let result = read;
    let bytes = chunk;
    while (this.#hasStopped && !this.#isDeaf && typeof result === "number") {
      this.#hasStopped = false;
      bytes = (bytes ?? this.#parser.getCurrentBuffer()).subarray(result);
      startAnew(this.#parser);
      // To have read nothing is to be at the end.
      result = bytes.length === 0 ? 0 : this.#parser.execute(bytes);
    }
    if (typeof result !== "number") {
      this.#unparsable(result);
    } else if (this.#changing !== undefined && !this.#isDeaf) {
      this.#changeProtocol(this.#changing, (bytes ?? this.#parser.getCurrentBuffer()).subarray(result));
    }
    this.#goOn();
    // Who sends more before it is answered waits; its leaving is not noticed meanwhile.
    if (this.#arrived.length > 0) this.pauseReading();
  }

  #unparsable(error: unknown): void {
    const code = codeOf(error);
    // Behind the last answer.
    if (this.#isDeaf) return;
    this.#hearNoMore();
    // Behind the last request of its connection nothing is read.
    if (code === "HPE_CLOSED_CONNECTION") return;
    this.#unreadable = unreadableBy(code);
    const broken = this.#incoming;
    this.#incoming = undefined;
    if (broken === undefined) return;
    if (broken === this.#current?.request) {
      // An answer that is under way cannot be trusted to fit.
      this.#unreadable = undefined;
      broken.fail(new CodedError("http-malformed", `the body is not HTTP/1.1 as RFC 9112 has it (${code})`));
      this.#socket.destroy();
      return;
    }
    // It was not begun, and is not.
    const index = this.#arrived.findIndex(({ request }) => request === broken);
    if (index >= 0) this.#arrived.splice(index);
  }

  #hearNoMore(): void {
    this.#isDeaf = true;
    this.#reading.end();
  }

  #changeProtocol(request: IncomingRequest, behind: Buffer): void {
    const { keepsAlive } = this.#arrived.pop() as Arrived;
    this.#arrived.push({ request, keepsAlive, behind });
    this.#hearNoMore();
    // What comes now is for whoever the socket is handed to.
    this.#socket.off("data", this.#onData);
    this.#socket.pause();
  }

  /** Begins what has arrived, one after the other. */
  #goOn(): void {
    if (this.#isWorking) return;
    this.#isWorking = true;
    while (this.#current === undefined && !this.#socket.destroyed && !this.#isHandedOver) {
      // Who does not take its answers gets no more of them.
      if (this.#socket.writableNeedDrain) break;
      const next = this.#arrived.shift();
      if (next !== undefined) this.#begin(next);
      else if (this.#unreadable !== undefined) this.#refuse(this.#unreadable);
      else if (this.#isDeaf) break;
      else {
        if (this.#owner.isDraining && !this.#isInHead) this.#endAfterLast();
        else this.resumeReading();
        break;
      }
    }
    this.#isWorking = false;
  }

  #begin({ request, keepsAlive, behind }: Arrived): void {
    const answer = new OutgoingAnswer(this, request, !keepsAlive || this.#owner.isDraining);
    this.#current = { request, answer };
    this.#owner.request(request, answer, behind);
  }

  /** From the answer: all of it is handed over. */
  answered(answer: OutgoingAnswer): void {
    const { request } = this.#current ?? {};
    this.#current = undefined;
    this.#deadline = performance.now() + (this.#isInHead ? HEAD_MS : IDLE_MS);
    answer.close();
    if (this.#isHandedOver || this.#socket.destroyed) return;
    if (!answer.isLast) {
      this.#goOn();
      return;
    }
    request?.drop();
    this.#endAfterLast();
  }

  /** From the answer. */
  handOver(): void {
    this.#isHandedOver = true;
    this.#hearNoMore();
    this.#current = undefined;
    this.#socket.off("data", this.#onData).off("end", this.#onEnd).off("drain", this.#onDrain);
  }

  /** The answer is out: what still comes is thrown away. */
  #endAfterLast(): void {
    // A body that nobody read, perhaps.
    this.resumeReading();
    this.#hearNoMore();
    this.#arrived.length = 0;
    drainAndClose(this.#socket);
  }

  #refuse({ status, title, code, reason }: Unreadable): void {
    this.#hearNoMore();
    this.#unreadable = undefined;
    this.#owner.refused(this.#socket, code, reason);
    endWith(this.#socket, status, title, code, reason);
  }

  bodyIsWanted(request: IncomingRequest): void {
    if (this.#current?.request !== request || request.httpVersion !== "1.1") return;
    if (headerOf(request.rawHeaders, "expect") === undefined || this.#current.answer.headersSent) return;
    this.#socket.write("HTTP/1.1 100 Continue\r\n\r\n", "latin1");
  }

  pauseReading(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#reading.pause();
  }

  resumeReading(): void {
    if (!this.#isPaused || this.#isHandedOver) return;
    this.#isPaused = false;
    this.#reading.resume();
  }

  #drained(): void {
    this.#current?.answer.emit("drain");
    this.#goOn();
  }

  #ended(): void {
    // Who ends its side is taken to have gone: nothing else tells that from one that only says no more.
    if (this.#current !== undefined || this.#isDeaf || !this.#isInHead) this.#socket.end();
    else this.#refuse(unreadableBy("HPE_INVALID_EOF_STATE"));
  }

  #closed(): void {
    this.#hearNoMore();
    this.#arrived.length = 0;
    const current = this.#current;
    this.#current = undefined;
    this.#incoming?.fail(new CodedError("ECONNRESET", "the caller closed the connection"));
    this.#incoming = undefined;
    current?.answer.close();
    // Never from within it.
    setImmediate(closeParser, this.#parser);
  }

  onBegin(): void {
    this.#isInHead = true;
    this.#deadline = performance.now() + HEAD_MS;
  }

  onHeaders(headers: readonly string[], url: string): void {
    this.#headers.push(...headers);
    this.#url += url;
  }

  onHead({ httpVersion, headers, method, url, isUpgrade, keepsAlive }: ParsedHead): 0 | 1 | 2 {
    const rawHeaders = headers ?? this.#headers;
    const request = new IncomingRequest(this, this.#socket, { method, url: url ?? this.#url, httpVersion, rawHeaders });
    this.#headers = [];
    this.#url = "";
    this.#isInHead = false;
    this.#incoming = request;
    if (isUpgrade && this.#owner.changesProtocol(request)) {
      this.#changing = request;
      this.#arrived.push({ request, keepsAlive: false, behind: undefined });
      return WITHOUT_BODY_AND_OTHER_PROTOCOL;
    }
    if (request.method === "CONNECT") {
      this.#hearNoMore();
      this.#incoming = undefined;
      this.#unreadable = NO_FORWARD_PROXY;
      return WITHOUT_BODY_AND_OTHER_PROTOCOL;
    }
    if (isUpgrade) this.#stopsBehind = request;
    this.#arrived.push({ request, keepsAlive, behind: undefined });
    return 0;
  }

  onBody(chunk: Buffer): void {
    const request = this.#incoming;
    try {
      request?.push(chunk);
    } catch (thrown) {
      this.#readerFailed(request, thrown);
    }
  }

  onComplete(): void {
    // Trailers: nothing was decided on them.
    this.#headers = [];
    const request = this.#incoming;
    this.#incoming = undefined;
    this.#hasStopped = request !== undefined && request === this.#stopsBehind;
    try {
      request?.end();
    } catch (thrown) {
      this.#readerFailed(request, thrown);
    }
  }

  /** An error of whoever reads a body does not get into the parser. */
  #readerFailed(request: IncomingRequest | undefined, thrown: unknown): void {
    request?.drop();
    request?.fail(errorOf(thrown));
    this.#socket.destroy();
  }
}

const WITHOUT_BODY_AND_OTHER_PROTOCOL = 2;
function closeParser(parser: HttpParser): void {
  parser.close();
}
