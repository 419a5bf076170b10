import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readOpening } from "../../src/workload-api/http2/opening.js";
import {
  ACKNOWLEDGEMENT,
  encodeFrame,
  type Frame,
  fetchJwtFrames,
  index,
  line,
  PREFACE,
  type RawClient,
  rawClient,
  SETTINGS,
  type,
} from "./http2-frames.js";

const OURS = encodeFrame({ type: type.settings, payload: Buffer.from([0, 3, 0, 0, 0, 128]) });

let directory = "";
let server: Server;
let client: RawClient;
let accepted: Socket;
let path: "as it is" | "rewritten" | undefined;
let received: Buffer;
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "agentid-opening-"));
  path = undefined;
  received = Buffer.alloc(0);
  server = createServer((socket) => {
    accepted = socket;
    readOpening(socket, OURS, {
      asItIs() {
        path = "as it is";
        expect(socket.isPaused()).toBe(true);
        socket.on("data", (data: Buffer) => (received = Buffer.concat([received, data]))).resume();
      },
      rewritten(frames, opening) {
        path = "rewritten";
        received = opening;
        socket.on("data", (data: Buffer) => (received = Buffer.concat([received, frames.pass(data)]))).resume();
      },
    });
  });
  server.listen(join(directory, "socket"));
  await once(server, "listening");
  const connected = once(server, "connection");
  client = await rawClient(join(directory, "socket"));
  await connected;
});
afterEach(() => {
  client.socket.destroy();
  accepted.destroy();
  server.close();
  rmSync(directory, { recursive: true, force: true });
});

function request(stream: number, authority: string): readonly Frame[] {
  return fetchJwtFrames(stream, line(index.authority, authority));
}

function bytes(...frames: readonly (Frame | Buffer)[]): Buffer {
  return Buffer.concat(frames.map((one) => (Buffer.isBuffer(one) ? one : encodeFrame(one))));
}

async function arrives(expected: Buffer): Promise<void> {
  await expect.poll(() => received.toString("hex"), { timeout: 5_000 }).toBe(expected.toString("hex"));
}

describe("a connection whose first request", () => {
  it("has no slash in its authority goes on by its own socket, without the acknowledgement", async () => {
    client.send(PREFACE, SETTINGS);
    await expect.poll(() => client.heard, { timeout: 5_000 }).toHaveLength(1);
    client.send(ACKNOWLEDGEMENT, ...request(1, "localhost"));
    await arrives(bytes(PREFACE, SETTINGS, ...request(1, "localhost")));
    expect(path).toBe("as it is");
    // Nobody looks any more.
    client.send(...request(3, "/a"));
    await arrives(bytes(PREFACE, SETTINGS, ...request(1, "localhost"), ...request(3, "/a")));
  });

  it("comes at once is not sent SETTINGS of ours", async () => {
    // And the beginning of another frame.
    const all = bytes(PREFACE, SETTINGS, ...request(1, "localhost"), encodeFrame(SETTINGS).subarray(0, 4));
    client.send(all);
    await arrives(all);
    expect([path, client.heard]).toEqual(["as it is", []]);
  });

  it("comes before the acknowledgement waits for it", async () => {
    client.send(PREFACE);
    await expect.poll(() => client.heard, { timeout: 5_000 }).toHaveLength(1);
    client.send(SETTINGS, ...request(1, "localhost"));
    await expect.poll(() => accepted.bytesRead).toBe(bytes(PREFACE, SETTINGS, ...request(1, "localhost")).length);
    expect(path).toBeUndefined();
    client.send(ACKNOWLEDGEMENT);
    await arrives(bytes(PREFACE, SETTINGS, ...request(1, "localhost")));
    expect(path).toBe("as it is");
  });

  it("has slashes is rewritten, and all after it", async () => {
    client.send(PREFACE, SETTINGS);
    await expect.poll(() => client.heard, { timeout: 5_000 }).toHaveLength(1);
    client.send(ACKNOWLEDGEMENT, ...request(1, "/run/a"), ...request(3, "/run/b"));
    await arrives(bytes(PREFACE, SETTINGS, ...request(1, "3run3a"), ...request(3, "3run3b")));
    expect(path).toBe("rewritten");
  });

  it("follows something that wants an answer is not waited for", async () => {
    const ping: Frame = { type: type.ping, payload: Buffer.alloc(8, "/") };
    client.send(PREFACE, SETTINGS, ping);
    await arrives(bytes(PREFACE, SETTINGS, ping));
    expect(path).toBe("rewritten");
    client.send(...request(1, "/run/a"));
    await arrives(bytes(PREFACE, SETTINGS, ping, ...request(1, "3run3a")));
  });

  it("never ends is not kept: what has come goes on when it is too much", async () => {
    const endless = Array<Frame>(100).fill({ type: type.continuation, stream: 1, payload: Buffer.alloc(1_000, 0x82) });
    const all = bytes(PREFACE, SETTINGS, { type: type.headers, stream: 1 }, ...endless);
    client.send(all.subarray(0, 65_000));
    await expect.poll(() => accepted.bytesRead).toBe(65_000);
    expect([path, received.length]).toEqual([undefined, 0]);
    client.send(all.subarray(65_000));
    await arrives(all);
    expect(path).toBe("rewritten");
  });
});
