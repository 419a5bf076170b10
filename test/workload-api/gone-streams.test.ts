import { afterEach, expect, it } from "vitest";
import {
  encodeFrame,
  type Frame,
  flag,
  index,
  indexed,
  line,
  PREFACE,
  rawClient,
  SETTINGS,
  type,
} from "./http2-frames.js";
import { receive } from "./received.js";
import { identity, type RunningApi, runApi, secure } from "./running-api.js";

let running: RunningApi | undefined;
afterEach(async () => {
  await running?.close();
  running = undefined;
});

/** A request as a client sends it whole, for `path` with `contentType`. */
function request(path: string, contentType: string, authority: string): Frame {
  const payload = Buffer.concat([
    ...[indexed(index.post), indexed(index.http), line(index.path, path), line(index.authority, authority)],
    ...[line(index.contentType, contentType), line("te", "trailers"), line("workload.spiffe.io", "true")],
  ]);
  return { type: type.headers, flags: flag.endOfStream | flag.endOfHeaders, stream: 1, payload };
}

/** How many SVIDs another connection gets meanwhile. */
async function somebodyElse(api: RunningApi): Promise<number> {
  const stream = receive(api.client().fetchX509Svid({}, secure()));
  const { svids } = await stream.next();
  stream.cancel();
  return svids.length;
}

const RESET = encodeFrame({ type: 3, stream: 1, payload: Buffer.alloc(4) });
const GARBAGE = Buffer.from("this is no frame at all, and very long");
const PING_ON_A_STREAM = encodeFrame({ type: type.ping, stream: 1, payload: Buffer.alloc(8) });

it.each([
  ["reset", RESET],
  ["followed by garbage", GARBAGE],
  ["followed by a frame that ends the connection", PING_ON_A_STREAM],
])("a call that is %s in the same packet ends nobody else's", async (_what, then) => {
  running = await runApi({ identities: [identity("agents/billing")] });
  for (const authority of ["localhost", "/run/agentid/workload.sock"]) {
    for (const [path, contentType] of [
      ["/NobodyAtAll/Fetch", "application/grpc"],
      ["/SpiffeWorkloadAPI/FetchX509SVID", "text/plain"],
      ["/SpiffeWorkloadAPI/FetchX509SVID", "application/grpc"],
    ] as const) {
      const rude = await rawClient(running.path);
      rude.send(
        Buffer.concat([PREFACE, encodeFrame(SETTINGS), encodeFrame(request(path, contentType, authority)), then]),
      );
      expect(await somebodyElse(running)).toBe(1);
      rude.socket.destroy();
    }
  }
  expect(await somebodyElse(running)).toBe(1);
});
