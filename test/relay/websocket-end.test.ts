import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { secureContextOptions } from "../../src/http/mutual-tls.js";
import { FrameTracker, goingAway } from "../../src/relay/websocket-frames.js";
import { createTestClock, type TestClock } from "../identity/test-trust-domain.js";
import { runs } from "../properties.js";
import { identity, type RunningRelay, runRelay, testAgent } from "./running-relay.js";
import { runWebSocketService, type WebSocketService } from "./websocket-service.js";

/** How the relay itself ends WebSockets: with a Close that says so, where one can stand. */

const RULES = "rules:\n  - { name: chat, allow: { from: agents/*, to: chat, method: GET, path: /chat/** } }\n";
const HOUR = 3_600_000;

let chat: WebSocketService;
let running: RunningRelay;
let clock: TestClock;
/** Codes that the service was given. */
let codes: number[];
const opened: { terminate(): void }[] = [];

beforeEach(async () => {
  clock = createTestClock(Date.now());
  chat = await runWebSocketService("chat");
  codes = [];
  const echo = chat.opened;
  chat.opened = (socket, request) => {
    socket.on("close", (code) => codes.push(code));
    echo(socket, request);
  };
  const identities = [testAgent, identity("agents/other")];
  running = await runRelay({ services: [chat.service], identities, rules: RULES, clock });
});
afterEach(async () => {
  for (const one of opened.splice(0)) one.terminate();
  await running.close();
  chat.close();
});

async function open(way: "both legs" | "the inbound leg"): Promise<WebSocket> {
  const { cert, key } = secureContextOptions(running.svidOf("agents/other"));
  const { port } = running.relay.addressesOf("chat")?.mtls ?? {};
  const socket =
    way === "both legs"
      ? new WebSocket(`${running.urlOf("chat").replace("http:", "ws:")}/chat/room`)
      : new WebSocket(`wss://127.0.0.1:${port}/chat/room`, { cert, key, rejectUnauthorized: false });
  opened.push(socket);
  socket.on("error", () => undefined);
  await once(socket, "open");
  return socket;
}

async function echoed(socket: WebSocket, message: string): Promise<string> {
  socket.send(message);
  return String((await once(socket, "message"))[0]);
}

const closeOf = async (socket: WebSocket) => ((await once(socket, "close")) as [number])[0];

/** A caller and its service that write frames by hand. */
async function openRaw(): Promise<{ caller: Socket; service: Socket; read: () => Buffer; got: () => Buffer }> {
  const got: Buffer[] = [];
  const switched = new Promise<Socket>((resolve) => {
    chat.switching = (request, socket) => {
      const key = `${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
      const answer = createHash("sha1").update(key).digest("base64");
      socket.write(
        `HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${answer}\r\n\r\n`,
      );
      socket.on("data", (chunk: Buffer) => got.push(chunk));
      resolve(socket);
    };
  });
  const { port, host } = new URL(running.urlOf("chat"));
  const caller = connect(Number(port), "127.0.0.1");
  opened.push({ terminate: () => caller.destroy() });
  const read: Buffer[] = [];
  caller.on("data", (chunk: Buffer) => read.push(chunk));
  caller.write(
    `GET /chat/x HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\nSec-WebSocket-Version: 13\r\n\r\n`,
  );
  const service = await switched;
  await expect.poll(() => Buffer.concat(read).toString("latin1")).toMatch(/^HTTP\/1\.1 101 .*\r\n\r\n/s);
  read.splice(0);
  return { caller, service, read: () => Buffer.concat(read), got: () => Buffer.concat(got) };
}

describe("a relay that closes", () => {
  it("says so to both ends of each WebSocket, and does not wait for the end of its patience", async () => {
    const sockets = [await open("both legs"), await open("the inbound leg")];
    for (const socket of sockets) expect(await echoed(socket, "before")).toBe("before");
    const closed = Promise.all(sockets.map(closeOf));
    await running.relay.close({ graceMs: 600_000 });
    expect(await closed).toEqual([1001, 1001]);
    await expect.poll(() => codes).toEqual([1001, 1001]);
  });

  it("waits for the end of a frame that is under way, and puts nothing into it", async () => {
    const { caller, service, read, got } = await openRaw();
    const frame = Buffer.from([0x82, 5, 1, 2, 3, 4, 5]);
    service.write(frame.subarray(0, 4));
    await expect.poll(() => read().length).toBe(4);
    const closed = running.relay.close({ graceMs: 600_000 });
    // The other direction is free, and goes on meanwhile.
    const question = Buffer.from([0x81, 0x82, 0, 0, 0, 0, 65, 66]);
    caller.write(question);
    await expect.poll(() => got().toString("hex")).toBe(question.toString("hex"));
    expect(read().toString("hex")).toBe(frame.subarray(0, 4).toString("hex"));
    service.write(frame.subarray(4));
    await closed;
    expect(read().toString("hex")).toBe(Buffer.concat([frame, goingAway({ masked: false })]).toString("hex"));
    const told = got().subarray(question.length);
    expect([...told.subarray(0, 2)]).toEqual([0x88, 0x82]);
    expect([...told.subarray(6)].map((byte, index) => byte ^ (told[2 + index] ?? 0))).toEqual([0x03, 0xe9]);
  });

  it("adds nothing behind the Close of an end", async () => {
    const { service, read } = await openRaw();
    const close = Buffer.from([0x88, 2, 0x03, 0xe8]);
    service.write(close);
    await expect.poll(() => read().toString("hex")).toBe(close.toString("hex"));
    await running.relay.close({ graceMs: 600_000 });
    expect(read().toString("hex")).toBe(close.toString("hex"));
  });

  it("breaks off what has not closed five seconds later", async () => {
    const { service } = await openRaw();
    service.on("error", () => undefined);
    await running.relay.close({ graceMs: 600_000 });
    clock.advance(5_000);
    // Who has read the end of a connection learns by writing that there is nobody any more.
    await expect
      .poll(() => {
        service.write("x");
        return service.destroyed;
      })
      .toBe(true);
  });
});

describe("a WebSocket on which nothing comes", () => {
  it("for an hour from either side is closed with a word, others are not", async () => {
    const idle = await open("both legs");
    const busy = await open("both legs");
    const pinged = await open("both legs");
    const closed = closeOf(idle);
    clock.advance(HOUR - 1_000);
    expect(await echoed(busy, "still here")).toBe("still here");
    pinged.ping();
    await once(pinged, "pong");
    expect(idle.readyState).toBe(WebSocket.OPEN);
    clock.advance(1_000);
    expect(await closed).toBe(1001);
    await expect.poll(() => codes).toEqual([1001]);
    for (const socket of [busy, pinged]) expect(await echoed(socket, "again")).toBe("again");
    clock.advance(HOUR);
    await expect.poll(() => [busy.readyState, pinged.readyState]).toEqual([WebSocket.CLOSED, WebSocket.CLOSED]);
  });

  it("and whose caller does not close when it is told is broken off a little later", async () => {
    const { caller } = await openRaw();
    caller.allowHalfOpen = true;
    const ended = once(caller, "end");
    clock.advance(HOUR);
    await ended;
    clock.advance(5_000);
    caller.on("error", () => undefined);
    await expect
      .poll(() => {
        clock.advance(1_000);
        caller.write("x");
        return caller.destroyed;
      })
      .toBe(true);
  });

  it("in the middle of a frame is broken off", async () => {
    const { caller, service } = await openRaw();
    service.write(Buffer.from([0x82, 5, 1]));
    await once(caller, "data");
    const closed = once(caller, "close");
    caller.on("error", () => undefined);
    clock.advance(HOUR);
    await closed;
  });
});

describe("frames", () => {
  const frame = fc
    .record({
      head: fc.integer({ min: 0, max: 255 }),
      masked: fc.boolean(),
      length: fc.oneof(fc.nat(130), fc.integer({ min: 65_530, max: 65_540 })),
      spelled: fc.constantFrom(7, 16, 64),
    })
    .map(({ head, masked, length, spelled }) => {
      const bit = masked ? 0x80 : 0;
      const long = Buffer.alloc(10);
      long.writeUInt8(head, 0);
      let size = 2;
      if (spelled === 7 && length < 126) long.writeUInt8(bit | length, 1);
      else if (spelled !== 64 && length < 65_536) {
        long.writeUInt8(bit | 126, 1);
        size = long.writeUInt16BE(length, 2);
      } else {
        long.writeUInt8(bit | 127, 1);
        size = long.writeBigUInt64BE(BigInt(length), 2);
      }
      return Buffer.concat([long.subarray(0, size), Buffer.alloc(masked ? 4 : 0, 0xff), Buffer.alloc(length, 0x88)]);
    });

  it("are told apart wherever they are cut", () => {
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 4 }), fc.array(fc.nat(400_000), { maxLength: 6 }), (frames, cuts) => {
        const bytes = Buffer.concat(frames);
        const ends = new Set<number>([0]);
        let end = 0;
        for (const one of frames) {
          end += one.length;
          ends.add(end);
        }
        const at = [...new Set([...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort((a, b) => a - b);
        const tracker = new FrameTracker();
        let from = 0;
        for (const to of at) {
          tracker.push(bytes.subarray(from, to));
          expect(tracker.isBetweenFrames).toBe(ends.has(to));
          from = to;
        }
        expect(tracker.isClosed).toBe(frames.some(([head = 0]) => (head & 0x0f) === 8));
      }),
      { numRuns: runs(300) },
    );
  });
});
