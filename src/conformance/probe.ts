import type { OutgoingHttpHeaders } from "node:http2";
import { status } from "@grpc/grpc-js";
import { displayText } from "../control-api/display-text.js";
import type { Clock } from "../platform/clock.js";
import { Failed } from "./check.js";
import { createGrpcConnection, type Ended, type GrpcStream } from "./grpc-connection.js";

/** A method of the generated stubs: its path and how its messages are written. */
export interface Method<Request, Response> {
  readonly path: string;
  readonly responseStream: boolean;
  requestSerialize(value: Request): Buffer;
  responseDeserialize(bytes: Buffer): Response;
}

/** Workload Endpoint §3: the metadata that every request of the Workload API has. */
const SECURITY_HEADER: OutgoingHttpHeaders = { "workload.spiffe.io": "true" };

/** A method that no server has. */
export const UNKNOWN_METHOD: Method<object, object> = {
  path: "/SpiffeWorkloadAPI/FetchNothing",
  responseStream: false,
  requestSerialize: () => Buffer.alloc(0),
  responseDeserialize: () => ({}),
};

/** What a call is answered with: its first message, or a status without one; and after how long. */
export type Answer<Response> = { readonly afterMs: number } & (
  | { readonly ok: true; readonly message: Response }
  | ({ readonly ok: false } & Ended)
);

/** What makes a call differ from the right one. */
interface Variation {
  readonly metadata?: OutgoingHttpHeaders;
  /** Bytes instead of the encoded request. */
  readonly body?: Buffer;
}

/** A stream whose messages are looked at one after the other. */
export interface Followed<Response> {
  /** The next message, or how the stream ended. Throws Failed if neither comes within `deadlineMs`. */
  next(deadlineMs?: number): Promise<{ readonly message: Response } | Ended>;
  /** Every message so far. */
  messages(): readonly Response[];
  readonly over: Ended | undefined;
  cancel(): void;
}

/** Asks a Workload API on one connection. */
export interface Probe {
  /** One call, to its first message or its end. Throws Failed if neither comes in time. */
  ask<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    variation?: Variation,
  ): Promise<Answer<Response>>;
  follow<Request, Response>(method: Method<Request, Response>, request: Request): Followed<Response>;
  readonly maxConcurrentStreams: number;
  /** Drops the connection without a goodbye. */
  drop(): void;
}

export function createProbe(target: string, deadlineMs: number, clock: Clock): Probe {
  const connection = createGrpcConnection(target);

  const open = <Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    { metadata = SECURITY_HEADER, body = method.requestSerialize(request) }: Variation = {},
  ): GrpcStream => connection.open(method.path, body, metadata);

  return {
    async ask(method, request, variation) {
      const started = clock.now();
      const stream = open(method, request, variation);
      const waited = `${nameOf(method)} was not answered`;
      try {
        const received = await within(stream.next(), deadlineMs, clock, waited);
        const afterMs = clock.now() - started;
        if (!("message" in received)) return { afterMs, ...withoutMessage(received, method) };
        if (!method.responseStream) {
          const end = await within(stream.ended, deadlineMs, clock, waited);
          if (end.status !== status.OK) return { ok: false, afterMs, ...end };
        }
        return { ok: true, message: decode(method, received.message), afterMs };
      } finally {
        stream.cancel();
      }
    },
    follow(method, request) {
      const stream = open(method, request);
      return {
        async next(wait = deadlineMs) {
          const received = await within(stream.next(), wait, clock, `${nameOf(method)} sent no further message`);
          return "message" in received ? { message: decode(method, received.message) } : received;
        },
        messages: () => stream.messages.map((bytes) => decode(method, bytes)),
        get over() {
          return stream.over;
        },
        cancel: () => stream.cancel(),
      };
    },
    get maxConcurrentStreams() {
      return connection.maxConcurrentStreams;
    },
    drop: () => connection.drop(),
  };
}

/** The last part of the path, as the standard names the method. */
export function nameOf({ path }: Pick<Method<unknown, unknown>, "path">): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** What an answer was, for people. */
export function described(answer: { readonly ok: true } | ({ readonly ok: false } & Ended) | Ended): string {
  if ("ok" in answer && answer.ok) return "OK";
  const name = status[answer.status] ?? `status ${answer.status}`;
  return answer.details === "" ? name : `${name} (${displayText(answer.details, 120)})`;
}

/** The status of an answer: OK where there was a message. */
export function statusOf(answer: Answer<unknown>): status {
  return answer.ok ? status.OK : answer.status;
}

/** Waits for `promise`, at most `ms`. Throws Failed. */
function within<T>(promise: Promise<T>, ms: number, clock: Clock, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(ms, () => reject(new Failed(`${what} within ${ms / 1000} s`)));
    promise.then(resolve, reject).finally(cancel);
  });
}

function withoutMessage(ended: Ended, method: Pick<Method<unknown, unknown>, "path">): { readonly ok: false } & Ended {
  // A status OK without a message is an answer in no case that is looked at here.
  if (ended.status !== status.OK) return { ok: false, ...ended };
  return { ok: false, status: status.OK, details: `${nameOf(method)} ended without a message` };
}

function decode<Response>(method: Method<never, Response>, bytes: Buffer): Response {
  try {
    return method.responseDeserialize(bytes);
  } catch (cause) {
    throw new Failed(`the answer of ${nameOf(method)} is not the protobuf message of the standard`, { cause });
  }
}
