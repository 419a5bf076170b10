import { type ClientReadableStream, type ServiceError, status } from "@grpc/grpc-js";

/** What a stream has brought, to be waited for message by message. */
export interface Received<Message> {
  /** The next message not yet taken. Rejects if the stream ends first. */
  next(): Promise<Message>;
  /** Messages that have arrived and were not taken. */
  readonly waiting: number;
  /** How it ended; `OK` if the server closed it without an error. */
  readonly ended: Promise<{ code: status; details: string }>;
  cancel(): void;
}

export function receive<Message>(stream: ClientReadableStream<Message>): Received<Message> {
  const messages: Message[] = [];
  const takers: { resolve: (message: Message) => void; reject: (reason: Error) => void }[] = [];
  let over: Error | undefined;
  let settle: (outcome: { code: status; details: string }) => void;
  const ended = new Promise<{ code: status; details: string }>((resolve) => {
    settle = resolve;
  });

  const finish = (error: Error, code: status, details: string) => {
    over = error;
    for (const { reject } of takers.splice(0)) reject(error);
    settle({ code, details });
  };
  stream.on("data", (message: Message) => {
    const taker = takers.shift();
    if (taker === undefined) messages.push(message);
    else taker.resolve(message);
  });
  stream.on("error", (error: ServiceError) => finish(error, error.code, error.details));
  stream.on("end", () => finish(new Error("the stream ended"), status.OK, ""));

  return {
    next() {
      const message = messages.shift();
      if (message !== undefined) return Promise.resolve(message);
      if (over !== undefined) return Promise.reject(over);
      return new Promise((resolve, reject) => takers.push({ resolve, reject }));
    },
    get waiting() {
      return messages.length;
    },
    ended,
    cancel: () => stream.cancel(),
  };
}
