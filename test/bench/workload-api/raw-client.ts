import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { JWTSVIDRequest, JWTSVIDResponse } from "../../../src/workload-api/generated/workload.js";

const HEADERS = {
  ":method": "POST",
  ":path": "/SpiffeWorkloadAPI/FetchJWTSVID",
  "content-type": "application/grpc",
  te: "trailers",
  "workload.spiffe.io": "true",
};

/**
 * FetchJWTSVID in bare HTTP/2 frames: a client that costs less than the server, so that the server is what is measured. For one audience, encoded once, or
 * each time for another one, for which nothing can have been signed before.
 */
export function rawClient(path: string, audiences: "one" | "each another" = "one") {
  const session = connectHttp2("http://localhost", { createConnection: () => connect(path) });
  const same = frameFor("orders");
  let asked = 0;
  return {
    fetch(): Promise<Buffer> {
      return new Promise((resolve, reject) => {
        const stream = session.request(HEADERS);
        const parts: Buffer[] = [];
        let answered = false;
        stream.on("data", (part: Buffer) => parts.push(part));
        stream.on("trailers", (trailers) => {
          answered = trailers["grpc-status"] === "0";
        });
        stream.on("error", reject);
        stream.on("close", () => (answered ? resolve(Buffer.concat(parts)) : reject(new Error("no grpc-status 0"))));
        stream.end(audiences === "one" ? same : frameFor(`orders-${asked++}`));
      });
    },
    close: () => session.close(),
  };
}

function frameFor(audience: string): Buffer {
  const message = Buffer.from(JWTSVIDRequest.encode({ audience: [audience], spiffeId: "" }).finish());
  const frame = Buffer.concat([Buffer.alloc(5), message]);
  frame.writeUInt32BE(message.length, 1);
  return frame;
}

/** The tokens in what `fetch` gave. */
export function tokensOf(answer: Buffer): readonly string[] {
  return JWTSVIDResponse.decode(answer.subarray(5)).svids.map(({ svid }) => svid);
}
