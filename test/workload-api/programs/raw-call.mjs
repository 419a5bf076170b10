// Opens FetchX509SVID by hand and prints its first answer as JSON: {"message": bytes} or {"status": code, "details": text}.
// Arguments: the path of the socket, or `fd:N` for a connection that somebody else opened; the authority that it names.
import { connect as connectHttp2 } from "node:http2";
import { connect, Socket } from "node:net";

const [where, authority = "localhost"] = process.argv.slice(2);
const socket = where.startsWith("fd:") ? new Socket({ fd: Number(where.slice(3)) }) : connect(where);
const session = connectHttp2("http://localhost", { createConnection: () => socket });
const request = session.request({
  ":method": "POST",
  ":authority": authority,
  ":path": "/SpiffeWorkloadAPI/FetchX509SVID",
  "content-type": "application/grpc",
  te: "trailers",
  "workload.spiffe.io": "true",
});

function answer(fields) {
  process.stdout.write(`${JSON.stringify(fields)}\n`, () => process.exit(0));
}
function answerStatus(headers) {
  if (headers["grpc-status"] === undefined) return;
  answer({ status: Number(headers["grpc-status"]), details: decodeURIComponent(headers["grpc-message"] ?? "") });
}
request.on("response", answerStatus);
request.on("trailers", answerStatus);
request.on("data", (data) => answer({ message: data.length }));
request.on("error", (error) => answer({ error: error.message }));
session.on("error", (error) => answer({ error: error.message }));
// One empty message.
request.end(Buffer.alloc(5));
