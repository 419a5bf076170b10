import type { Readable } from "node:stream";
import type { Dispatcher } from "undici";
import { codeOf, messageOf } from "../coded-error.js";
import { Refusal } from "../http/refusal.js";
import { recordOutcome, showEnd } from "./decision-record.js";
import type { Exchange, RelayParts } from "./exchange.js";
import { DECISION_HEADER, forwardableResponseHeaders } from "./headers.js";
import type { BodyRewriter } from "./mcp-tool-list.js";

/** What goes to the next hop: exactly what was decided. */
export interface NextHop {
  readonly dispatcher: Dispatcher;
  readonly path: string;
  /** Flat list of names and values. */
  readonly headers: string[];
  readonly body: Buffer | Readable | null;
  /** Chooses how the body of the answer is rewritten, by its content type. */
  readonly rewriterFor?: ((status: number, contentType: string) => BodyRewriter | undefined) | undefined;
}

const TIMEOUTS = new Set(["UND_ERR_HEADERS_TIMEOUT", "UND_ERR_CONNECT_TIMEOUT", "UND_ERR_BODY_TIMEOUT"]);
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
export function forward(parts: RelayParts, exchange: Exchange, hop: NextHop): Promise<void> {
  return new Promise((resolve, reject) => {
    const answer = new ForwardedAnswer(parts, exchange, hop, resolve, reject);
    hop.dispatcher.dispatch(
      {
        path: hop.path,
        method: (exchange.request.method ?? "GET") as Dispatcher.HttpMethod,
        headers: hop.headers,
        body: hop.body,
      },
      answer,
    );
  });
}

class ForwardedAnswer implements Dispatcher.DispatchHandler {
  readonly #parts: RelayParts;
  readonly #exchange: Exchange;
  readonly #hop: NextHop;
  readonly #resolve: () => void;
  readonly #reject: (refusal: Refusal) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #rewriter: BodyRewriter | undefined;
  #status: number | undefined;
  #over = false;

  constructor(
    parts: RelayParts,
    exchange: Exchange,
    hop: NextHop,
    resolve: () => void,
    reject: (refusal: Refusal) => void,
  ) {
    this.#parts = parts;
    this.#exchange = exchange;
    this.#hop = hop;
    this.#resolve = resolve;
    this.#reject = reject;
    exchange.response.on("close", () => {
      if (!this.#over) this.#callerGone();
    });
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#over) controller.abort(new Error("the caller went away"));
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (this.#over) return;
    if (status === 101) {
      this.#fail(new Refusal("upstream-response", 502, "the service switched to a protocol that was not asked for"));
      return;
    }
    // RFC 9110 §15.2: no answer yet. Nothing of it was decided on, so nothing of it goes on.
    if (status < 200) return;
    const { request, response } = this.#exchange;
    const raw = textHeaders(controller.rawHeaders);
    const type = headerText(raw, "content-type");
    try {
      this.#rewriter = this.#hop.rewriterFor?.(status, type);
      if (this.#rewriter !== undefined && headerText(raw, "content-encoding") !== "") {
        throw new Refusal("upstream-response", 502, "the service answered with an encoding that was not asked for");
      }
      recordOutcome(this.#parts, this.#exchange, { status });
    } catch (thrown) {
      this.#fail(thrown);
      return;
    }
    this.#status = status;
    const { decision } = this.#exchange;
    // A leg that did not decide hands the decision of the other leg on.
    const dropped =
      this.#rewriter === undefined ? (decision === undefined ? undefined : DECISION_ONLY) : ABOUT_THE_BYTES;
    const headers = forwardableResponseHeaders(raw, dropped);
    if (decision !== undefined) headers.push(DECISION_HEADER, decision.id);
    // An answer that comes before the request is over: what is left of the body must not be read as the next request.
    if (!request.complete) headers.push("Connection", "close");
    response.writeHead(status, headers);
    // The head of a stream goes out at once, an event may be long in coming; a body of known length brings its head along.
    if (this.#rewriter === undefined && headerText(raw, "content-length") === "") response.flushHeaders();
    else if (type.startsWith("text/event-stream")) response.flushHeaders();
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#over) return;
    const { response } = this.#exchange;
    try {
      const out = this.#rewriter === undefined ? chunk : this.#rewriter.push(chunk);
      if (out === undefined || response.write(out)) return;
    } catch (thrown) {
      this.#fail(thrown);
      return;
    }
    controller.pause();
    response.once("drain", () => controller.resume());
  }

  onResponseEnd(): void {
    if (this.#over) return;
    try {
      const rest = this.#rewriter?.end();
      if (rest === undefined) this.#exchange.response.end();
      else this.#exchange.response.end(rest);
    } catch (thrown) {
      this.#fail(thrown);
      return;
    }
    this.#finish(undefined);
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#fail(error);
  }

  #callerGone(): void {
    try {
      if (this.#status === undefined) recordOutcome(this.#parts, this.#exchange, { error: "caller-gone" });
    } catch {
      // Nobody is left to refuse; the log's owner already knows that it cannot be written.
    }
    this.#finish("caller-gone");
    this.#controller?.abort(new Error("the caller went away"));
  }

  #fail(thrown: unknown): void {
    if (this.#over) return;
    const { response } = this.#exchange;
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
    this.#resolve();
  }
}

function asRefusal(thrown: unknown, service: string): Refusal {
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

function textHeaders(raw: unknown): string[] {
  if (!Array.isArray(raw)) return [];
  return raw.map((part: unknown) => (Buffer.isBuffer(part) ? part.toString("latin1") : String(part)));
}

function headerText(raw: readonly string[], name: string): string {
  for (let index = 0; index < raw.length; index += 2) {
    if (raw[index]?.toLowerCase() === name) return raw[index + 1]?.toLowerCase() ?? "";
  }
  return "";
}
