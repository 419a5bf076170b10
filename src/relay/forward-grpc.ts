import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from "node:http2";
import { codeOf } from "../coded-error.js";
import { Refusal } from "../http/refusal.js";
import { headerOf, type RawHeaders } from "../http/request-headers.js";
import { recordOutcomeAtOnce, showEnd } from "./decision-record.js";
import { filled, type RelayParts } from "./exchange.js";
import { asRefusal } from "./forward.js";
import type { GrpcCall } from "./grpc-exchange.js";
import { checkRequestTrailers } from "./grpc-request.js";
import { GrpcStatus, grpcMessage, grpcTimeoutMs } from "./grpc-status.js";
import { endGrpcSpan } from "./grpc-tracing.js";
import { DECISION_HEADER, forwardableResponseHeaders } from "./headers.js";
import { letGo } from "./http2-listener.js";
import type { SessionLease } from "./session-pool.js";
import { continuedHeaders } from "./tracing.js";

const { constants, sensitiveHeaders } = process.getBuiltinModule("node:http2");
const { NGHTTP2_CANCEL, NGHTTP2_FLAG_END_STREAM, NGHTTP2_NO_ERROR, NGHTTP2_PROTOCOL_ERROR } = constants;

/** Where a call goes on. */
export interface GrpcHop {
  readonly lease: () => Promise<SessionLease>;
  readonly scheme: "http" | "https";
  readonly authority: string;
  /** Fields besides the caller's own; flat list of names and values. */
  readonly added: readonly string[];
}

const DECISION_ONLY = new Set([DECISION_HEADER.toLowerCase()]);
/** Never kept in a table of either side (RFC 7541 §7.1.3). */
const SECRETS = ["authorization", "cookie"];
/** Beyond that no timer can wait; the other side still knows the deadline. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/**
 * Sends a call on and its answer back: messages in both directions at the pace of whoever reads them, trailers, the end of either side, and the code
 * with which either side breaks it off. Resolves when it is over. Rejects with Refusal while nothing has gone back.
 */
export async function forwardGrpc(parts: RelayParts, call: GrpcCall, hop: GrpcHop): Promise<void> {
  const { name } = call.service;
  const { stream } = call.incoming;
  // While a connection is opened the caller's stream is not read.
  const lease = await hop.lease().catch((thrown: unknown) => {
    throw asRefusal(thrown, name);
  });
  try {
    if (stream.destroyed) endWithoutCaller(parts, call);
    else await new ForwardedCall(parts, call, lease.session, openStream(call, hop, lease)).over;
  } finally {
    lease.release();
  }
}

function openStream(call: GrpcCall, hop: GrpcHop, { session }: SessionLease): ClientHttp2Stream {
  const { method, target, raw } = filled(call.head, "head");
  const fields = [...continuedHeaders(raw, call.span), ...hop.added];
  const headers: OutgoingHttpHeaders = {
    ...{ ":method": method, ":scheme": hop.scheme, ":authority": hop.authority, ":path": target.raw },
    ...headerObject(fields),
    te: "trailers",
  };
  try {
    const { ended } = call.incoming;
    return session.request(headers, ended ? { endStream: true } : { endStream: false, waitForTrailers: true });
  } catch (thrown) {
    if (codeOf(thrown) === "ERR_HTTP2_HEADER_SINGLE_VALUE") {
      throw new Refusal("header-duplicate", 400, "a header is given twice that can have one value", { cause: thrown });
    }
    throw asRefusal(thrown, call.service.name);
  }
}

/** One call that runs. Three things end it: its answer, its caller, its deadline; the first that does counts. */
class ForwardedCall {
  readonly over: Promise<void>;
  readonly #parts: RelayParts;
  readonly #call: GrpcCall;
  readonly #session: ClientHttp2Session;
  readonly #upstream: ClientHttp2Stream;
  readonly #cancelDeadline: () => void;
  #resolve = (): void => undefined;
  #reject = (_refusal: Refusal): void => undefined;
  #isOver = false;
  #trailers: RawHeaders = [];

  constructor(parts: RelayParts, call: GrpcCall, session: ClientHttp2Session, upstream: ClientHttp2Stream) {
    this.#parts = parts;
    this.#call = call;
    this.#session = session;
    this.#upstream = upstream;
    this.over = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#followCaller();
    this.#followUpstream();
    this.#cancelDeadline = this.#armDeadline();
  }

  #followCaller(): void {
    const { stream, ended } = this.#call.incoming;
    stream.on("close", () => this.#callerGone(stream.rstCode));
    stream.on("wantTrailers", () => {
      if (this.#isOver) this.#sendTrailers();
      else this.#end();
    });
    if (ended) return;
    this.#upstream.on("wantTrailers", () => {
      if (this.#upstream.destroyed) return;
      try {
        this.#upstream.sendTrailers(headerObject(checkRequestTrailers(this.#call.incoming.trailers)));
      } catch {
        this.#upstream.close(NGHTTP2_CANCEL);
        stream.close(NGHTTP2_PROTOCOL_ERROR);
      }
    });
    stream.pipe(this.#upstream);
  }

  #followUpstream(): void {
    const { stream } = this.#call.incoming;
    const upstream = this.#upstream;
    upstream.on("response", (_headers: unknown, flags: number, raw: string[]) => {
      if (this.#isOver) return;
      try {
        this.#respond(raw, (flags & NGHTTP2_FLAG_END_STREAM) !== 0);
      } catch (thrown) {
        this.#fail(asRefusal(thrown, this.#call.service.name));
      }
    });
    upstream.on("trailers", (_headers: unknown, _flags: number, raw: string[]) => {
      this.#trailers = forwardableResponseHeaders(raw, this.#dropped());
    });
    upstream.on("error", () => undefined);
    upstream.on("close", () => {
      if (this.#isOver || (upstream.rstCode === NGHTTP2_NO_ERROR && stream.headersSent)) return;
      if (this.#session.destroyed) {
        this.#fail(new Refusal("upstream-failed", 502, `${this.#call.service.name} broke off`));
      } else this.#brokenOff(upstream.rstCode ?? NGHTTP2_CANCEL);
    });
  }

  /** `grpc-timeout` goes on too: whoever sees it first ends the call. */
  #armDeadline(): () => void {
    const { timeout } = filled(this.#call.head, "head");
    const deadlineMs = timeout === undefined ? undefined : grpcTimeoutMs(timeout);
    if (deadlineMs === undefined) return () => undefined;
    return this.#parts.clock.after(Math.min(deadlineMs, MAX_DELAY_MS), () =>
      this.#fail(new Refusal("upstream-timeout", 504, `${this.#call.service.name} did not answer before the deadline`)),
    );
  }

  #respond(raw: RawHeaders, ended: boolean): void {
    const { incoming, decision } = this.#call;
    const status = Number(headerOf(raw, ":status"));
    const headers = {
      ":status": status,
      ...headerObject(withoutPseudo(forwardableResponseHeaders(raw, this.#dropped()))),
      ...(decision !== undefined && { [DECISION_HEADER.toLowerCase()]: decision.id }),
    };
    if (ended) {
      const grpcStatus = headerOf(raw, "grpc-status");
      recordOutcomeAtOnce(this.#parts, this.#call, { status, ...(grpcStatus !== undefined && statusIn(grpcStatus)) });
      this.#finish({ status });
      incoming.stream.respond(headers, { endStream: true });
      this.#answered();
      return;
    }
    incoming.stream.respond(headers, { waitForTrailers: true });
    this.#upstream.pipe(incoming.stream);
  }

  /** The answer is complete but for its trailers: they go out when the outcome is on record. */
  #end(): void {
    const { stream } = this.#call.incoming;
    if (stream.destroyed) return;
    const grpcStatus = headerOf(this.#trailers, "grpc-status");
    try {
      recordOutcomeAtOnce(this.#parts, this.#call, {
        status: 200,
        ...(grpcStatus !== undefined && statusIn(grpcStatus)),
      });
    } catch (unwritable) {
      this.#fail(asRefusal(unwritable, this.#call.service.name));
      return;
    }
    this.#finish({ status: 200 });
    this.#sendTrailers();
  }

  #sendTrailers(): void {
    const { stream } = this.#call.incoming;
    if (stream.destroyed) return;
    stream.sendTrailers(headerObject(this.#trailers));
    this.#answered();
  }

  /** What is left of the request is not wanted by anybody (RFC 9113 §8.1). */
  #answered(): void {
    const { stream, ended } = this.#call.incoming;
    endGrpcSpan(this.#call);
    stream.unpipe(this.#upstream);
    if (!ended && !stream.readableEnded) this.#upstream.close(NGHTTP2_NO_ERROR);
    letGo(stream);
  }

  #callerGone(code: number | undefined): void {
    if (this.#isOver) return;
    endOutcome(this.#parts, this.#call, "caller-gone");
    this.#finish({ error: "caller-gone" });
    this.#upstream.close(code === undefined || code === NGHTTP2_NO_ERROR ? NGHTTP2_CANCEL : code);
  }

  /** The service has broken off its stream, and says how. */
  #brokenOff(code: number): void {
    endOutcome(this.#parts, this.#call, "upstream-failed");
    this.#finish({ error: "upstream-failed" });
    this.#call.incoming.stream.close(code);
  }

  /** The relay ends the call: with a status where nothing of an answer is out, else with one in trailers. */
  #fail(refusal: Refusal): void {
    if (this.#isOver) return;
    const { stream } = this.#call.incoming;
    this.#upstream.close(NGHTTP2_CANCEL);
    if (!stream.headersSent && !stream.destroyed) {
      this.#isOver = true;
      this.#cancelDeadline();
      this.#reject(refusal);
      return;
    }
    endOutcome(this.#parts, this.#call, refusal.code);
    this.#finish({ status: 200, error: refusal.code });
    this.#upstream.unpipe(stream);
    const status = refusal.code === "upstream-timeout" ? GrpcStatus.deadlineExceeded : GrpcStatus.unavailable;
    this.#trailers = ["grpc-status", String(status), "grpc-message", grpcMessage(refusal.message)];
    if (stream.writableFinished) this.#sendTrailers();
    else stream.end();
  }

  #finish(outcome: { status?: number; error?: string }): void {
    this.#isOver = true;
    this.#cancelDeadline();
    showEnd(this.#parts, this.#call, outcome);
    this.#resolve();
  }

  /** A leg that did not decide hands the decision of the other leg on. */
  #dropped(): ReadonlySet<string> | undefined {
    return this.#call.decision === undefined ? undefined : DECISION_ONLY;
  }
}

function endWithoutCaller(parts: RelayParts, call: GrpcCall): void {
  endOutcome(parts, call, "caller-gone");
  showEnd(parts, call, { error: "caller-gone" });
}

/** Of a call that has failed: nobody waits for its outcome any more, and the log's owner knows when it cannot be written. */
function endOutcome(parts: RelayParts, call: GrpcCall, error: string): void {
  try {
    recordOutcomeAtOnce(parts, call, { error });
  } catch {
    // As said above.
  }
}

function statusIn(text: string): { grpcStatus?: number } {
  return /^[0-9]{1,3}$/.test(text) ? { grpcStatus: Number(text) } : {};
}

function withoutPseudo(raw: RawHeaders): readonly string[] {
  return raw.filter((_, index) => !(raw[index - (index % 2)] ?? "").startsWith(":"));
}

/** Names and values as Node takes them; what comes twice, in order. */
function headerObject(raw: RawHeaders): OutgoingHttpHeaders {
  const headers: Record<string, string | string[]> = Object.create(null) as Record<string, string | string[]>;
  for (let index = 0; index < raw.length; index += 2) {
    const [name = "", value = ""] = [raw[index]?.toLowerCase(), raw[index + 1]];
    const known = headers[name];
    headers[name] = known === undefined ? value : [known, value].flat();
  }
  return Object.assign(headers, { [sensitiveHeaders]: SECRETS.filter((name) => name in headers) });
}
