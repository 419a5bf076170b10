import type { Readable } from "node:stream";
import { codeOf, messageOf } from "../coded-error.js";
import type { AnswerHandler, AnswerSteering, Onward } from "../http/outgoing-call.js";
import { Refusal } from "../http/refusal.js";
import { headerOf } from "../http/request-headers.js";
import { recordOutcome, showEnd } from "./decision-record.js";
import type { Exchange, RelayParts } from "./exchange.js";
import { DECISION_HEADER, forwardableResponseHeaders } from "./headers.js";
import type { BodyRewriter } from "./mcp-tool-list.js";

/** The headers of an answer (flat list) as the caller may see them, now or when the answer is given again. */
export type AnswerHeaders = (headers: readonly string[]) => string[];

/** What goes to the next hop: exactly what was decided. */
export interface NextHop {
  readonly dispatcher: Onward;
  readonly path: string;
  /** Flat list of names and values. */
  readonly headers: string[];
  readonly body: Buffer | Readable | null;
  readonly answerHeaders?: AnswerHeaders;
  /** Chooses how the body of the answer is rewritten, by its content type. */
  readonly rewriterFor?: ((status: number, contentType: string) => BodyRewriter | undefined) | undefined;
}

const TIMEOUTS = new Set(["answer-timeout", "connect-timeout"]);
/** Once we rewrite a body these say the wrong thing about it. */
const ABOUT_THE_BYTES = new Set([
  DECISION_HEADER.toLowerCase(),
  "accept-ranges",
  "content-digest",
  "content-length",
  "content-md5",
  "digest",
  "etag",
  "repr-digest",
]);
const DECISION_ONLY = new Set([DECISION_HEADER.toLowerCase()]);

/**
 * Sends the exchange's request on and its answer back, streaming both ways with back-pressure; a caller that goes away ends the call
 * upstream (MCP: closing the response is cancellation), an upstream that breaks off ends the answer. Rejects with Refusal
 * `upstream-unreachable`, `upstream-failed` (502), `upstream-timeout` (504), `upstream-response` (502) or `record-unwritable` (503)
 * while the head of the answer is not out; resolves otherwise.
 */
export function forward(parts: RelayParts, exchange: Exchange, hop: NextHop): Promise<"answered"> {
  return new Promise((resolve, reject) => {
    const answer = new ForwardedAnswer(parts, exchange, hop, resolve, reject);
    // It went while its decision was being recorded: its leaving will not be heard of again.
    if (exchange.response.destroyed || exchange.request.socket.destroyed) {
      answer.callerGone();
      return;
    }
    hop.dispatcher.dispatch(
      { path: hop.path, method: exchange.request.method, headers: hop.headers, body: hop.body },
      answer,
    );
  });
}

interface AnswerHead {
  readonly status: number;
  readonly raw: readonly string[];
  /** Its content type, in lower case. */
  readonly type: string;
}

interface HeldAnswer {
  readonly chunks: Buffer[];
  ended: boolean;
  failure: Error | undefined;
}

const NOTHING_HELD: HeldAnswer = { chunks: [], ended: false, failure: undefined };

class ForwardedAnswer implements AnswerHandler {
  readonly #parts: RelayParts;
  readonly #exchange: Exchange;
  readonly #hop: NextHop;
  readonly #resolve: (result: "answered") => void;
  readonly #reject: (refusal: Refusal) => void;
  #controller: AnswerSteering | undefined;
  #rewriter: BodyRewriter | undefined;
  #status: number | undefined;
  /** What came while the outcome was being recorded. */
  #held: HeldAnswer | undefined;
  #over = false;

  constructor(
    parts: RelayParts,
    exchange: Exchange,
    hop: NextHop,
    resolve: (result: "answered") => void,
    reject: (refusal: Refusal) => void,
  ) {
    this.#parts = parts;
    this.#exchange = exchange;
    this.#hop = hop;
    this.#resolve = resolve;
    this.#reject = reject;
    exchange.response.on("close", () => {
      if (!this.#over) this.callerGone();
    });
  }

  onRequestStart(controller: AnswerSteering): void {
    this.#controller = controller;
    if (this.#over) controller.abort(new Error("the caller went away"));
  }

  onResponseStart(controller: AnswerSteering, status: number): void {
    if (this.#over) return;
    // RFC 9110 §15.2: no answer yet. Nothing of it was decided on, so nothing of it goes on.
    if (status < 200) return;
    const raw = controller.rawHeaders;
    const type = headerText(raw, "content-type");
    try {
      this.#rewriter = this.#hop.rewriterFor?.(status, type);
      if (this.#rewriter !== undefined && headerText(raw, "content-encoding") !== "") {
        throw new Refusal("upstream-response", 502, "the service answered with an encoding that was not asked for");
      }
    } catch (thrown) {
      this.#fail(thrown);
      return;
    }
    this.#status = status;
    const answer = { status, raw, type };
    // A leg that did not decide leaves the record to the other.
    if (this.#exchange.decision === undefined) {
      this.#release(answer, NOTHING_HELD);
      return;
    }
    const held: HeldAnswer = { chunks: [], ended: false, failure: undefined };
    this.#held = held;
    recordOutcome(this.#parts, this.#exchange, { status }).then(
      () => this.#release(answer, held),
      (thrown: unknown) => {
        this.#held = undefined;
        this.#fail(thrown);
      },
    );
  }

  /** The outcome is on record: what came with the head, in the same turn of the event loop, follows it. */
  #release(answer: AnswerHead, { chunks, ended, failure }: HeldAnswer): void {
    this.#held = undefined;
    if (this.#over) return;
    try {
      this.#begin(answer);
    } catch (thrown) {
      this.#fail(thrown);
      return;
    }
    const [last] = chunks;
    if (ended && chunks.length === 1 && last !== undefined && this.#rewriter === undefined) {
      this.#finish(undefined);
      this.#exchange.response.end(last);
      return;
    }
    for (const chunk of chunks) this.#pass(chunk);
    // What is on record as answered goes out before it is cut off.
    if (failure !== undefined) setImmediate(() => this.#fail(failure));
    else if (ended) this.#end();
  }

  #begin({ status, raw, type }: AnswerHead): void {
    const { response, decision } = this.#exchange;
    // A leg that did not decide hands the decision of the other leg on.
    const dropped =
      this.#rewriter === undefined || this.#rewriter.keepsBytes === true
        ? decision === undefined
          ? undefined
          : DECISION_ONLY
        : ABOUT_THE_BYTES;
    const forwardable = forwardableResponseHeaders(raw, dropped);
    const headers = this.#hop.answerHeaders?.(forwardable) ?? forwardable;
    if (decision !== undefined) headers.push(DECISION_HEADER, decision.id);
    response.writeHead(status, headers);
    // The head of a stream goes out at once, an event may be long in coming; a body of known length brings its head along.
    if (this.#rewriter === undefined && headerText(raw, "content-length") === "") response.flushHeaders();
    else if (type.startsWith("text/event-stream")) response.flushHeaders();
  }

  onResponseData(_controller: AnswerSteering, chunk: Buffer): void {
    if (this.#over) return;
    if (this.#held === undefined) this.#pass(chunk);
    else this.#held.chunks.push(chunk);
  }

  #pass(chunk: Buffer): void {
    if (this.#over) return;
    const { response } = this.#exchange;
    try {
      const out = this.#rewriter === undefined ? chunk : this.#rewriter.push(chunk);
      if (out === undefined || response.write(out)) return;
    } catch (thrown) {
      this.#fail(thrown);
      return;
    }
    this.#controller?.pause();
    response.once("drain", () => this.#controller?.resume());
  }

  onResponseEnd(): void {
    if (this.#over) return;
    if (this.#held === undefined) this.#end();
    else this.#held.ended = true;
  }

  #end(): void {
    if (this.#over) return;
    let rest: Buffer | undefined;
    try {
      rest = this.#rewriter?.end();
    } catch (thrown) {
      this.#fail(thrown);
      return;
    }
    this.#finish(undefined);
    this.#exchange.response.end(rest);
  }

  onResponseError(_controller: AnswerSteering, error: Error): void {
    if (this.#held === undefined) this.#fail(error);
    else this.#held.failure ??= error;
  }

  callerGone(): void {
    if (this.#status === undefined) {
      // Nobody is left to refuse; the log's owner already knows that it cannot be written.
      recordOutcome(this.#parts, this.#exchange, { error: "caller-gone" }).catch(() => undefined);
    }
    this.#finish("caller-gone");
    this.#controller?.abort(new Error("the caller went away"));
  }

  #fail(thrown: unknown): void {
    if (this.#over) return;
    const { request, response } = this.#exchange;
    // Whoever was cut off, their connections onward were too.
    if (request.socket.destroyed) {
      this.callerGone();
      return;
    }
    const refusal = asRefusal(thrown, this.#exchange.service.name);
    if (response.headersSent) {
      // What is out is out: only a broken connection tells the caller that the rest is missing.
      this.#finish(refusal.code);
      response.destroy();
    } else {
      this.#over = true;
      this.#reject(refusal);
    }
    this.#controller?.abort(refusal);
  }

  #finish(error: string | undefined): void {
    this.#over = true;
    showEnd(this.#parts, this.#exchange, {
      ...(this.#status === undefined ? {} : { status: this.#status }),
      ...(error === undefined ? {} : { error }),
    });
    this.#resolve("answered");
  }
}

/** What went wrong on the way to `service`, as the caller is told. */
export function asRefusal(thrown: unknown, service: string): Refusal {
  if (thrown instanceof Refusal) return thrown;
  const code = codeOf(thrown);
  if (TIMEOUTS.has(code)) {
    return new Refusal("upstream-timeout", 504, `${service} did not answer in time`, { cause: thrown });
  }
  if (code === "ECONNREFUSED" || code === "ENOENT") {
    return new Refusal("upstream-unreachable", 502, `${service} does not listen where it should (${code})`, {
      cause: thrown,
    });
  }
  return new Refusal("upstream-failed", 502, `${service} broke off: ${messageOf(thrown)}`, { cause: thrown });
}

function headerText(raw: readonly string[], name: string): string {
  return headerOf(raw, name)?.toLowerCase() ?? "";
}
