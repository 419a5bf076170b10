import type { KeptAnswer } from "../durable/call-table.js";
import type { AnswerHandler, AnswerSteering, Onward } from "../http/outgoing-call.js";
import { headerOf } from "../http/request-headers.js";
import { recordOutcome } from "./decision-record.js";
import type { RunningCall } from "./durable-calls.js";
import { isEventStream, responseInEvent, responseWithoutId } from "./durable-mcp.js";
import { keptHeaders } from "./durable-replay.js";
import { type Exchange, filled, type RelayParts } from "./exchange.js";
import type { AnswerHeaders } from "./forward.js";
import { checkedJson } from "./json-rpc-answer.js";
import type { JsonRpcId } from "./mcp-message.js";
import { cutEvents, type EventCutter } from "./server-sent-events.js";

const MAX_ANSWER_BYTES = 1024 * 1024;
/** How long a call goes on whose caller is gone. */
const ALONE_MS = 300_000;
/** The service says that it did nothing: 401 (RFC 9110 §15.5.2), 421 (§15.5.20), 425 (RFC 8470 §5.2), 429 (RFC 6585 §4). */
const NOTHING_DONE = new Set([401, 421, 425, 429]);
const WITHOUT_BODY = new Set([204, 304]);

/** Sends by `dispatcher` and looks on: what is answered is in the store before its end goes on to whoever waits, and the call goes on without its caller. */
export function keepAnswer(
  parts: RelayParts,
  exchange: Exchange,
  { dispatcher, ...kept }: { dispatcher: Onward; call: RunningCall; answerHeaders: AnswerHeaders },
): Onward {
  return {
    dispatch(options, handler) {
      try {
        return dispatcher.dispatch(options, new AnswerKeeper(parts, exchange, kept, handler));
      } catch (thrown) {
        void kept.call.unsent();
        throw thrown;
      }
    },
  };
}

class AnswerKeeper implements AnswerHandler {
  readonly #parts: RelayParts;
  readonly #exchange: Exchange;
  readonly #call: RunningCall;
  /** What the caller may not see is not kept either. */
  readonly #answerHeaders: AnswerHeaders;
  readonly #inner: AnswerHandler;
  /** What the inner handler steers by. */
  readonly #toward: AnswerSteering;
  #upstream: AnswerSteering | undefined;
  /** The first byte of the request may be out. */
  #isSent = false;
  /** Nobody waits for the answer any more. */
  #isAlone = false;
  #forgetAlone: () => void = () => undefined;
  /** Nothing more comes. */
  #isOver = false;
  /** The response came in a stream that may go on. */
  #isAnswered = false;
  #isPausedByInner = false;
  #isTooLarge = false;
  #status = 0;
  #headers: readonly string[] = [];
  #length: number | undefined;
  #received = 0;
  #kept: Buffer[] = [];
  #events: EventCutter | undefined;
  /** Passes on what is held back, in its order. */
  #held: (() => void)[] = [];
  /** While the store writes. */
  #storing: Promise<void> | undefined;

  constructor(
    parts: RelayParts,
    exchange: Exchange,
    { call, answerHeaders }: { call: RunningCall; answerHeaders: AnswerHeaders },
    inner: AnswerHandler,
  ) {
    this.#parts = parts;
    this.#exchange = exchange;
    this.#call = call;
    this.#answerHeaders = answerHeaders;
    this.#inner = inner;
    this.#toward = this.#steering();
  }

  onRequestStart(controller: AnswerSteering): void {
    // No client of HTTP may think that it knows better.
    if (this.#isSent) {
      controller.abort(new Error("a call with a key is not sent twice"));
      return;
    }
    this.#upstream = controller;
    this.#inner.onRequestStart(this.#toward);
    // Whoever had gone before has aborted it: then nothing is sent.
    this.#isSent = !controller.aborted;
  }

  onResponseStart(controller: AnswerSteering, status: number): void {
    if (status < 200) return;
    this.#status = status;
    this.#headers = controller.rawHeaders;
    if (this.#isAlone) this.#recordStatus();
    const length = headerOf(this.#headers, "content-length");
    if (length !== undefined) this.#length = Number(length);
    if (this.#requestId !== undefined && isEventStream(this.#headers)) this.#events = cutEvents();
    const pass = () => this.#inner.onResponseStart(this.#toward, status);
    // Such a head is all of the answer.
    if (WITHOUT_BODY.has(status)) this.#held.push(pass);
    else if (!this.#isAlone) pass();
  }

  onResponseData(controller: AnswerSteering, chunk: Buffer): void {
    this.#received += chunk.length;
    const response = this.#events === undefined ? undefined : this.#responseIn(chunk);
    if (this.#events === undefined) this.#keep(chunk);
    const pass = () => this.#inner.onResponseData(this.#toward, chunk);
    if (response !== undefined) {
      this.#events = undefined;
      this.#isAnswered = true;
      // The stream may stay open: for its client the call is answered here.
      controller.pause();
      this.#storing = this.#call.answered(this.#answer(Buffer.from(response))).then(() => {
        this.#storing = undefined;
        if (!this.#isAlone) pass();
        if (!this.#isPausedByInner) controller.resume();
      });
    } else if (this.#received === this.#length) {
      // The last byte of a known length is the end for who counts.
      this.#held.push(pass);
    } else if (!this.#isAlone) {
      pass();
    }
  }

  onResponseEnd(_controller: AnswerSteering): void {
    this.#end();
    void this.#store().then(() => {
      for (const pass of this.#held) pass();
      this.#inner.onResponseEnd(this.#toward);
    });
  }

  onResponseError(_controller: AnswerSteering, error: Error): void {
    this.#end();
    if (this.#isSent) {
      this.#call.lost();
      this.#inner.onResponseError(this.#toward, error);
    } else {
      // Who hears that nothing was sent may ask again at once.
      void this.#call.unsent().then(() => this.#inner.onResponseError(this.#toward, error));
    }
  }

  #end(): void {
    this.#isOver = true;
    this.#forgetAlone();
  }

  async #store(): Promise<void> {
    await this.#storing;
    if (NOTHING_DONE.has(this.#status) || this.#asksToComeAgain()) return this.#call.unsent();
    if (this.#isTooLarge) return this.#call.answered(undefined);
    const id = this.#requestId;
    if (id === undefined) return this.#call.answered(this.#answer(Buffer.concat(this.#kept)));
    // The stream broke off before the response came; a call that was answered in it has ended already.
    if (isEventStream(this.#headers)) return this.#call.lost();
    const body = Buffer.concat(this.#kept);
    // What its caller was refused is not given to whoever asks again.
    if (!isAnswer(this.#status, this.#headers, body, id)) return this.#call.lost();
    return this.#call.answered(this.#answer(Buffer.from(responseWithoutId(body.toString("utf8"), id) ?? body)));
  }

  /** 503 with `Retry-After`: a temporary overload, come again with the same (RFC 9110 §15.6.4). */
  #asksToComeAgain(): boolean {
    const named = (text: string, index: number) => index % 2 === 0 && text.toLowerCase() === "retry-after";
    return this.#status === 503 && this.#headers.some(named);
  }

  #answer(body: Buffer): KeptAnswer {
    return { status: this.#status, headers: this.#answerHeaders(keptHeaders(this.#headers)), body };
  }

  get #requestId() {
    const { message } = this.#exchange;
    return message?.kind === "request" ? message.id : undefined;
  }

  #keep(chunk: Buffer): void {
    if (this.#isTooLarge || this.#storing !== undefined) return;
    if (this.#received <= MAX_ANSWER_BYTES) this.#kept.push(chunk);
    else this.#tooLarge();
  }

  /** The response that ends in this chunk of a stream of events. */
  #responseIn(chunk: Buffer): string | undefined {
    const [id, events] = [this.#requestId, this.#events];
    if (id === undefined || events === undefined) return undefined;
    for (const event of events.push(chunk)) {
      const response = responseInEvent(event, id);
      if (response !== undefined && response.length <= MAX_ANSWER_BYTES) return response;
      if (response !== undefined) this.#tooLarge();
    }
    if (events.pending > MAX_ANSWER_BYTES) this.#tooLarge();
    return undefined;
  }

  #tooLarge(): void {
    this.#isTooLarge = true;
    this.#events = undefined;
    this.#kept = [];
    if (this.#isAlone) this.#giveUp();
  }

  /** The caller is gone. What may have been done goes on: its answer is for whoever asks again. */
  #leaveAlone(): void {
    if (this.#isAlone) return;
    this.#isAlone = true;
    if (this.#isOver) return;
    if (this.#isTooLarge || this.#isAnswered) {
      this.#giveUp();
      return;
    }
    const { clock, registry } = this.#parts;
    const { id } = filled(this.#exchange.caller, "caller");
    const { trustDomain } = this.#exchange.service.id;
    const cancel = clock.after(ALONE_MS, () => this.#giveUp());
    const unless = () => {
      const isGone = id.memberOf(trustDomain) && registry.find(id.toString()) === undefined;
      if (isGone || registry.isRevoked(id)) this.#giveUp();
    };
    const forget = registry.onChange(unless);
    this.#forgetAlone = () => {
      cancel();
      forget();
    };
    unless();
    this.#isPausedByInner = false;
    if (this.#storing === undefined) this.#upstream?.resume();
  }

  #giveUp(): void {
    this.#forgetAlone();
    if (this.#isTooLarge) void this.#call.answered(undefined);
    this.#upstream?.abort(new Error("nobody waits for the answer"));
  }

  /** The head came when the caller had gone: the record has the outcome all the same. */
  #recordStatus(): void {
    // Nobody is left to refuse; the log's owner already knows that it cannot be written.
    recordOutcome(this.#parts, this.#exchange, { status: this.#status }).catch(() => undefined);
  }

  #steering(): AnswerSteering {
    const upstream = () => filled(this.#upstream, "upstream");
    const pause = () => {
      this.#isPausedByInner = true;
      upstream().pause();
    };
    const resume = () => {
      this.#isPausedByInner = false;
      if (this.#storing === undefined) upstream().resume();
    };
    const abort = (reason: Error) => {
      if (this.#isSent) this.#leaveAlone();
      else upstream().abort(reason);
    };
    return {
      pause,
      resume,
      abort,
      get aborted() {
        return upstream().aborted;
      },
      get rawHeaders() {
        return upstream().rawHeaders;
      },
    };
  }
}

function isAnswer(status: number, headers: readonly string[], body: Buffer, id: JsonRpcId): boolean {
  if (headerOf(headers, "content-type")?.toLowerCase().startsWith("application/json") !== true) return true;
  const checked = checkedJson(status, id);
  try {
    checked.push(body);
    checked.end();
    return true;
  } catch {
    return false;
  }
}
