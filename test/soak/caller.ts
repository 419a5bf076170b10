import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from "node:http2";
import { connect as connectSocket } from "node:net";
import type { SoakCall } from "./calls.js";

/** What a call was answered: a gRPC status by number, `opened`, or what else happened. */
export type Answer = number | "opened" | `error: ${string}`;

/** A connection of its own to the Workload API. */
export function openConnection(socketPath: string): {
  call(call: SoakCall): Promise<Answer>;
  close(): Promise<void>;
} {
  const session = connect("http://localhost", { createConnection: () => connectSocket(socketPath) });
  // Every stream learns of it by itself.
  session.on("error", () => {});
  return {
    call: (call) => callOn(session, call),
    close: () => new Promise((resolve) => session.close(resolve)),
  };
}

function callOn(session: ClientHttp2Session, { path, header, body, answer, goesOn }: SoakCall): Promise<Answer> {
  const stream = session.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    te: "trailers",
    ...(header === undefined ? {} : { "workload.spiffe.io": typeof header === "string" ? header : [...header] }),
  });
  return new Promise((resolve) => {
    let heard: Answer = "error: closed without a status";
    const hear = (headers: Record<string, unknown>) => {
      const code = headers["grpc-status"];
      if (code !== undefined) heard = Number(code);
    };
    stream.on("response", hear);
    stream.on("trailers", hear);
    stream.on("error", (error) => {
      if (typeof heard === "string" && heard !== "opened") heard = `error: ${error.message}`;
    });
    stream.on("data", () => {
      if (answer !== "opened" || heard === "opened") return;
      heard = "opened";
      cancel(stream);
    });
    stream.on("close", () => resolve(heard));
    if (goesOn === true) stream.write(body);
    else stream.end(body);
  });
}

function cancel(stream: ClientHttp2Stream): void {
  stream.close(constants.NGHTTP2_CANCEL);
}
