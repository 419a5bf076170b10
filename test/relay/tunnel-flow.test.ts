import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { Clock } from "../../src/platform/clock.js";
import type { Resolve } from "../../src/relay/egress-connection.js";
import { egressService } from "../../src/relay/running-service.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { target } from "./outside.js";
import { type RunningRelay, runRelay } from "./running-relay.js";
import { ends, eventually } from "./tcp-services.js";

/** How bytes flow through a tunnel of CONNECT: at the pace of whoever reads them, and not for ever without any. */

const RULES = "rules:\n  - { name: tunnels, allow: { from: agents/tests, to: egress/api, action: connect } }\n";
const LONG = 60_000;
const PIECE = Buffer.alloc(64 * 1024, "x");
const PIECES = 1_024;
/** Of the kernel's buffers and of streams on both hops, and far below what is sent. */
const IN_FLIGHT = 32 * 1024 * 1024;

let server: Server;
let port: number;
/** Connections to the target, in their order. */
let arrived: Socket[];
const open: (() => unknown)[] = [];

beforeEach(async () => {
  arrived = [];
  server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => undefined);
    socket.pause();
    arrived.push(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  port = (server.address() as AddressInfo).port;
  open.push(() => server.close());
});
afterEach(async () => {
  for (const socket of arrived) socket.destroy();
  for (const close of open.splice(0).reverse()) await close();
});

const leadsHere: Resolve = async () => [{ address: "127.0.0.1", family: 4 }];

async function proxy(options: { clock?: Clock; resolve?: Resolve } = {}): Promise<RunningRelay> {
  const { clock, resolve = leadsHere } = options;
  const api = target("api", { port, ca: "" }, { host: "api.test", connect: true, ca: undefined });
  const running = await runRelay({
    ...{ services: [egressService(api)], rules: RULES, change: (parts) => ({ ...parts, resolve }) },
    ...(clock !== undefined && { clock }),
  });
  open.push(() => running.close());
  return running;
}

function ask(running: RunningRelay): Socket {
  const to = Number(new URL(running.relay.proxyUrl() ?? "").port);
  const socket = connect({ port: to, host: "127.0.0.1", allowHalfOpen: true });
  open.push(() => socket.destroy());
  socket.on("error", () => undefined);
  socket.write(`CONNECT api.test:${port} HTTP/1.1\r\nHost: api.test:${port}\r\n\r\n`);
  return socket;
}

/** A tunnel that stands, with its end at the target. */
async function tunnel(running: RunningRelay): Promise<{ socket: Socket; there: Socket }> {
  const count = arrived.length;
  const socket = ask(running);
  const [head] = (await once(socket, "data")) as [Buffer];
  expect(head.toString()).toMatch(/^HTTP\/1\.1 200 /);
  socket.pause();
  await eventually(() => arrived.length).toBe(count + 1);
  return { socket, there: arrived[count] as Socket };
}

/** Until what waits in `socket` stands still. */
async function stands(socket: Socket): Promise<number> {
  const left: number[] = [];
  await eventually(() => left.push(socket.writableLength) > 3 && new Set(left.slice(-4)).size === 1, {
    interval: 300,
  }).toBe(true);
  return socket.writableLength;
}

async function flows(from: Socket, to: Socket): Promise<void> {
  for (let index = 0; index < PIECES; index += 1) from.write(PIECE);
  from.end();
  const waiting = await stands(from);
  expect(waiting).toBeGreaterThan(PIECES * PIECE.length - IN_FLIGHT);
  let came = 0;
  to.on("data", (chunk: Buffer) => {
    came += chunk.length;
  });
  to.resume();
  await eventually(() => came).toBe(PIECES * PIECE.length);
}

it("a caller waits while its target does not read", { timeout: LONG }, async () => {
  const { socket, there } = await tunnel(await proxy());
  await flows(socket, there);
});

it("a target waits while its caller does not read", { timeout: LONG }, async () => {
  const { socket, there } = await tunnel(await proxy());
  await flows(there, socket);
});

it("a caller that sends ahead of the answer waits for it", { timeout: LONG }, async () => {
  let lead: () => void = () => undefined;
  const led = new Promise<void>((resolve) => (lead = resolve));
  const running = await proxy({ resolve: async (host) => led.then(() => leadsHere(host)) });
  const socket = ask(running);
  for (let index = 0; index < PIECES; index += 1) socket.write(PIECE);
  expect(await stands(socket)).toBeGreaterThan(PIECES * PIECE.length - IN_FLIGHT);
  expect(arrived).toEqual([]);
  lead();
  await eventually(() => arrived.length).toBe(1);
  let came = 0;
  arrived[0]?.on("data", (chunk: Buffer) => {
    came += chunk.length;
  });
  arrived[0]?.resume();
  await eventually(() => came).toBe(PIECES * PIECE.length);
});

it("a tunnel on which nothing comes from either side is reset after an hour, others are not", async () => {
  const clock = createTestClock();
  const running = await proxy({ clock });
  const [idle, sending, receiving] = [await tunnel(running), await tunnel(running), await tunnel(running)];
  const heard: string[] = [];
  for (const { socket } of [sending, receiving]) socket.on("data", (chunk) => heard.push(String(chunk)));
  for (const { socket, there } of [sending, receiving]) {
    there.on("data", (chunk) => heard.push(String(chunk)));
    there.resume();
    socket.resume();
  }
  clock.advance(45 * 60_000);
  sending.socket.write("sent");
  receiving.there.write("received");
  await eventually(() => heard.toSorted()).toEqual(["received", "sent"]);
  const gone = new Promise((resolve) => idle.socket.once("close", resolve));
  idle.socket.resume();
  clock.advance(20 * 60_000);
  await gone;
  await eventually(() => ends(running)).toEqual([expect.objectContaining({ error: "idle-timeout" })]);
  sending.socket.write("still");
  await eventually(() => heard).toContain("still");
});
