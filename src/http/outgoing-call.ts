import type { Readable } from "node:stream";
import type { RawHeaders } from "./request-headers.js";

/** What goes out. `headers` is a flat list of names and values; a body that is read as it comes may have a `Content-Length` there. */
export interface OutgoingRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: readonly string[];
  readonly body: Buffer | Readable | null;
}

/** How who waits for an answer steers it. */
export interface AnswerSteering {
  /** Nothing more is told until `resume`. */
  pause(): void;
  resume(): void;
  /** Ends the call, and its connection where something of it is out; the handler is told of it as of an error. */
  abort(reason: Error): void;
  readonly aborted: boolean;
  /** Of the answer, once it has begun. */
  readonly rawHeaders: RawHeaders;
}

/** What is told of an answer, in this order: a start (which may abort), a head, pieces of the body, and an end; or an error at any time, as the last. */
export interface AnswerHandler {
  onRequestStart(steering: AnswerSteering): void;
  /** Interim answers (RFC 9110 §15.2) may be told too. */
  onResponseStart(steering: AnswerSteering, status: number): void;
  onResponseData(steering: AnswerSteering, chunk: Buffer): void;
  onResponseEnd(steering: AnswerSteering): void;
  onResponseError(steering: AnswerSteering, error: Error): void;
}

/** Where a request goes on. */
export interface Onward {
  dispatch(request: OutgoingRequest, handler: AnswerHandler): unknown;
}
