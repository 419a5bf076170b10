import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createTestClock } from "../identity/test-trust-domain.js";
import { type RunningRelay, runRelay } from "./running-relay.js";
import {
  decisions,
  echo,
  ends,
  eventually,
  plain,
  plainTo,
  portOf,
  runTcpUpstream,
  type TcpUpstream,
} from "./tcp-services.js";

/** The behaviours that people expect of a relay of bytes, as ghostunnel's integration tests list them. */

const RULES = "rules:\n  - { name: connects, allow: { from: agents/*, to: orders } }\n";
const LONG = 60_000;

let orders: TcpUpstream;
let running: RunningRelay;
let serve: (socket: Socket) => void;

beforeEach(async () => {
  serve = echo;
  orders = await runTcpUpstream("orders", (socket) => serve(socket), { kind: "tcp" });
  running = await runRelay({ services: [orders.service], rules: RULES });
});

afterEach(async () => {
  await running.close();
  await orders.close();
});

const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

/** Sends `bytes` and reads the echo of it to its end. */
async function roundTrip(bytes: Buffer): Promise<string> {
  const { socket, received, over } = await plainTo(running, "orders");
  socket.end(bytes);
  expect(await over).toBe("end");
  return sha256(Buffer.concat(received));
}

describe("ends", () => {
  it("of the caller alone leave the service time to answer", async () => {
    serve = (socket) => {
      let asked = "";
      socket.on("data", (chunk: Buffer) => {
        asked += chunk.toString();
      });
      socket.once("end", () => socket.end(`answer to ${asked}`));
    };
    const { socket, text, over } = await plainTo(running, "orders");
    socket.end("the whole question");
    expect(await over).toBe("end");
    expect(text()).toBe("answer to the whole question");
  });

  it("of a caller that has nothing to say reach the service, however early they come", async () => {
    serve = (socket) => {
      socket.resume();
      socket.once("end", () => socket.end("the time of day"));
    };
    const { socket, text, over } = await plainTo(running, "orders");
    socket.end();
    expect(await over).toBe("end");
    expect(text()).toBe("the time of day");
    await eventually(() => ends(running)).toEqual([expect.objectContaining({ sent: 0, received: 15 })]);
  });

  it("of the service alone leave the caller time to go on", async () => {
    let heard = "";
    serve = (socket) => {
      socket.end("that is all from me");
      socket.on("data", (chunk: Buffer) => {
        heard += chunk.toString();
      });
    };
    const { socket, text, over } = await plainTo(running, "orders");
    await once(socket, "end");
    expect(text()).toBe("that is all from me");
    socket.write("and still ");
    await eventually(() => heard).toBe("and still ");
    socket.end("this");
    expect(await over).toBe("end");
    await eventually(() => heard).toBe("and still this");
    await eventually(() => ends(running)).toEqual([expect.not.objectContaining({ error: expect.anything() })]);
  });

  it("that the caller makes by a reset reach the service as a reset", async () => {
    const seen: string[] = [];
    serve = (socket) => {
      socket.resume();
      socket.on("error", (error: NodeJS.ErrnoException) => seen.push(error.code ?? ""));
    };
    const { socket } = await plainTo(running, "orders");
    socket.write("half a mess");
    await eventually(() => orders.begun.map(String)).toEqual(["half a mess"]);
    socket.resetAndDestroy();
    await eventually(() => seen).toEqual(["ECONNRESET"]);
    await eventually(() => ends(running)).toEqual([
      expect.objectContaining({ error: expect.stringContaining("ECONNRESET") }),
    ]);
  });

  it("that the service makes by a reset reach the caller as a reset", async () => {
    serve = (socket) => {
      socket.once("data", () => socket.resetAndDestroy());
    };
    const { socket, over } = await plainTo(running, "orders");
    socket.write("?");
    expect(await over).toBe("ECONNRESET");
  });
});

describe("bytes", () => {
  it("pass whole, both ways at once", { timeout: LONG }, async () => {
    const toCaller = randomBytes(8 * 1024 * 1024);
    const toService = randomBytes(8 * 1024 * 1024);
    const arrived: Buffer[] = [];
    serve = (socket) => {
      socket.end(toCaller);
      socket.on("data", (chunk: Buffer) => arrived.push(chunk));
    };
    const { socket, received, over } = await plainTo(running, "orders");
    socket.end(toService);
    expect(await over).toBe("end");
    await eventually(() => sha256(Buffer.concat(arrived))).toBe(sha256(toService));
    expect(sha256(Buffer.concat(received))).toBe(sha256(toCaller));
    await eventually(() => ends(running)).toEqual([
      expect.objectContaining({ sent: toService.length, received: toCaller.length }),
    ]);
  });

  it("pass whole where they are many", { timeout: LONG }, async () => {
    const bytes = randomBytes(64 * 1024 * 1024);
    expect(await roundTrip(bytes)).toBe(sha256(bytes));
  });

  it("pass whole where they come one by one", { timeout: LONG }, async () => {
    const bytes = randomBytes(2_000);
    const { socket, received, over } = await plainTo(running, "orders");
    socket.setNoDelay(true);
    for (const byte of bytes) {
      const { length } = Buffer.concat(received);
      socket.write(Buffer.of(byte));
      if (length % 100 === 0) await eventually(() => Buffer.concat(received).length).toBeGreaterThanOrEqual(length);
    }
    socket.end();
    expect(await over).toBe("end");
    expect(Buffer.concat(received)).toEqual(bytes);
  });

  it("wait with the caller while the service does not read", { timeout: LONG }, async () => {
    const bytes = randomBytes(96 * 1024 * 1024);
    let read = () => {};
    const digest = createHash("sha256");
    let arrived = 0;
    serve = (socket) => {
      socket.pause();
      read = () => {
        socket.on("data", (chunk: Buffer) => {
          digest.update(chunk);
          arrived += chunk.length;
        });
        socket.once("end", () => socket.end());
        socket.resume();
      };
    };
    const { socket, over } = await plainTo(running, "orders");
    const before = process.memoryUsage().arrayBuffers;
    for (let at = 0; at < bytes.length; at += 64 * 1024) socket.write(bytes.subarray(at, at + 64 * 1024));
    socket.end();
    await eventually(() => orders.arrived.length).toBe(1);
    // What the kernel's buffers between the hops take, and no more: until nothing moves any longer.
    const left: number[] = [];
    const stands = () => left.push(socket.writableLength) > 3 && new Set(left.slice(-4)).size === 1;
    await eventually(stands, { interval: 300 }).toBe(true);
    expect(socket.writableLength).toBeGreaterThan(bytes.length / 2);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(32 * 1024 * 1024);
    read();
    expect(await over).toBe("end");
    await eventually(() => arrived).toBe(bytes.length);
    expect(digest.digest("hex")).toBe(sha256(bytes));
  });

  it("of the caller wait for the decision, and go nowhere without it", async () => {
    const waiting: (() => void)[] = [];
    const slow = await runRelay({
      services: [orders.service],
      rules: RULES,
      change: (parts) => {
        // Made once, so that it is the same decision point before and after.
        const point = parts.decisionPoint();
        const delayed = {
          ...point,
          decide: async (request: Parameters<typeof point.decide>[0]) => {
            await new Promise<void>((resolve) => waiting.push(resolve));
            return point.decide(request);
          },
        };
        return { ...parts, decisionPoint: () => delayed };
      },
    });
    const { socket, over, text } = await plainTo(slow, "orders");
    socket.end("early");
    await eventually(() => waiting.length).toBe(1);
    expect(orders.arrived).toHaveLength(0);
    waiting[0]?.();
    expect(await over).toBe("end");
    expect(text()).toBe("early");
    await slow.close();
  });
});

describe("many connections", () => {
  it("come and go, and none is left", { timeout: LONG }, async () => {
    for (let round = 0; round < 10; round += 1) {
      await Promise.all(
        Array.from({ length: 20 }, async () => {
          const { socket, text, over } = await plainTo(running, "orders");
          socket.end(`round ${round}`);
          expect(await over).toBe("end");
          expect(text()).toBe(`round ${round}`);
        }),
      );
    }
    await eventually(() => orders.open()).toBe(0);
    await eventually(() => ends(running).length).toBe(200);
    expect(decisions(running).filter(({ verdict }) => verdict === "ALLOW")).toHaveLength(200);
  });

  it("are refused beyond their bound, on record, until one ends", async () => {
    await running.relay.update([{ ...orders.service, connections: { max: 2, idleSeconds: 3600 } }]);
    const first = await plainTo(running, "orders");
    const second = await plainTo(running, "orders");
    for (const { socket, text } of [first, second]) {
      socket.write("in");
      await eventually(text).toBe("in");
    }
    const third = await plainTo(running, "orders");
    third.socket.end("in");
    expect(await third.over).toBe("end");
    expect(third.text()).toBe("");
    expect(decisions(running).at(-1)).toMatchObject({
      verdict: "DENY",
      leg: "outbound",
      rule: "connections-exhausted",
      reason: "orders has 2 connections open, and takes no more",
    });
    first.socket.end();
    expect(await first.over).toBe("end");
    await eventually(() => ends(running).length).toBe(1);
    const fourth = await plainTo(running, "orders");
    fourth.socket.end("in");
    await fourth.over;
    expect(fourth.text()).toBe("in");
    second.socket.destroy();
  });

  it("on which nothing comes are closed after their time, others are not", async () => {
    const clock = createTestClock();
    const timed = await runRelay({
      services: [{ ...orders.service, connections: { max: 100, idleSeconds: 60 } }],
      rules: RULES,
      clock,
    });
    const idle = await plainTo(timed, "orders");
    const busy = await plainTo(timed, "orders");
    for (const { socket, text } of [idle, busy]) {
      socket.write("1");
      await eventually(text).toBe("1");
    }
    clock.advance(45_000);
    busy.socket.write("2");
    await eventually(busy.text).toBe("12");
    clock.advance(45_000);
    expect(await idle.over).toBe("ECONNRESET");
    await eventually(() => ends(timed)).toEqual([expect.objectContaining({ error: "idle-timeout" })]);
    busy.socket.end("3");
    expect(await busy.over).toBe("end");
    expect(busy.text()).toBe("123");
    await timed.close();
  });

  it("that never come out of their handshake neither stay nor keep others out", { timeout: LONG }, async () => {
    const { port = 0 } = running.relay.addressesOf("orders")?.mtls ?? {};
    const silent = await Promise.all(Array.from({ length: 300 }, () => plain(connect({ host: "127.0.0.1", port }))));
    // The oldest have gone at once, and whoever shakes hands gets through.
    await eventually(() => silent.filter(({ socket }) => socket.closed).length).toBeGreaterThanOrEqual(44);
    const bytes = Buffer.from("through the flood");
    expect(await roundTrip(bytes)).toBe(sha256(bytes));
    expect(silent.filter(({ socket }) => !socket.closed).length).toBeGreaterThan(200);
    await eventually(() => silent.filter(({ socket }) => !socket.closed).length).toBe(0);
  });
});

describe("while connections are open", () => {
  it("certificates and the service's entry are replaced under load", { timeout: LONG }, async () => {
    const pieces = 5;
    const pumps = await Promise.all(
      Array.from({ length: 10 }, async () => {
        const { socket, received, over } = await plainTo(running, "orders");
        const sent = [Buffer.from("begun")];
        socket.write("begun");
        await eventually(() => Buffer.concat(received).toString()).toBe("begun");
        return { socket, received, over, sent };
      }),
    );
    const moved = await runTcpUpstream("orders", echo, { kind: "tcp" });
    for (let reload = 0; reload < pieces; reload += 1) {
      for (const { socket, sent } of pumps) {
        const piece = randomBytes(256 * 1024);
        sent.push(piece);
        socket.write(piece);
      }
      await running.keeper.rotateAll();
      await running.relay.update([
        reload % 2 === 0 ? { ...orders.service, upstream: moved.service.upstream } : orders.service,
      ]);
      // New connections go where the entry says now, with the new certificates.
      const bytes = randomBytes(1_000);
      expect(await roundTrip(bytes)).toBe(sha256(bytes));
    }
    for (const { socket } of pumps) socket.end();
    for (const { over, received, sent } of pumps) {
      expect(await over).toBe("end");
      expect(sha256(Buffer.concat(received))).toBe(sha256(Buffer.concat(sent)));
    }
    expect(moved.arrived.length).toBe(3);
    await eventually(() => orders.open() + moved.open()).toBe(0);
    await moved.close();
  });

  it("a certificate that cannot be used leaves the last one in its place", async () => {
    const rotated: (() => void)[] = [];
    const kept = await runRelay({
      services: [orders.service],
      rules: RULES,
      change: (parts) => ({
        ...parts,
        svids: {
          ...parts.svids,
          x509Svid: (id, launchedBy) => parts.svids.x509Svid(id, launchedBy),
          onRotation(id, listener) {
            if (id.equals(orders.service.id)) {
              const svid = parts.svids.x509Svid(id);
              rotated.push(() => listener({ ...svid, privateKeyPkcs8: Buffer.from("no key") }));
            }
            return parts.svids.onRotation(id, listener);
          },
        },
      }),
    });
    const before = await plainTo(kept, "orders");
    before.socket.write("1");
    await eventually(before.text).toBe("1");
    for (const rotate of rotated) rotate();
    expect(kept.events).toContainEqual(expect.objectContaining({ event: "problem", code: "certificate-unusable" }));
    before.socket.end("2");
    expect(await before.over).toBe("end");
    expect(before.text()).toBe("12");
    const after = await plainTo(kept, "orders");
    after.socket.end("3");
    expect(await after.over).toBe("end");
    expect(after.text()).toBe("3");
    await kept.close();
  });

  it("a stop takes no new ones and lets those that run finish", async () => {
    const port = portOf(running, "orders");
    const { socket, text, over } = await plainTo(running, "orders");
    socket.write("begun, ");
    await eventually(text).toBe("begun, ");
    const stopped = running.relay.close({ graceMs: 20_000 });
    await eventually(() => refusedAt(port)).toBe("ECONNREFUSED");
    socket.end("finished");
    expect(await over).toBe("end");
    expect(text()).toBe("begun, finished");
    await stopped;
  });

  it("a stop cuts what does not finish in its time", async () => {
    const { socket, text, over } = await plainTo(running, "orders");
    socket.write("begun");
    await eventually(text).toBe("begun");
    await running.relay.close({ graceMs: 100 });
    expect(await over).toBe("ECONNRESET");
    await eventually(() => orders.open()).toBe(0);
  });
});

async function refusedAt(port: number): Promise<string> {
  const socket = connect({ host: "127.0.0.1", port });
  try {
    await once(socket, "connect");
    return "connected";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "";
  } finally {
    socket.destroy();
  }
}

it("a service that comes and goes is found again, and what it missed is on record", async () => {
  const flapping = await runTcpUpstream("orders", echo, { kind: "tcp" });
  await running.relay.update([flapping.service]);
  for (let round = 0; round < 3; round += 1) {
    const up = await plainTo(running, "orders");
    up.socket.end("up");
    expect(await up.over).toBe("end");
    expect(up.text()).toBe("up");
    const nobody = await runTcpUpstream("orders", echo, { kind: "tcp" });
    await nobody.close();
    await running.relay.update([nobody.service]);
    const down = await plainTo(running, "orders");
    down.socket.end("down");
    expect(await down.over).toBe("end");
    expect(down.text()).toBe("");
    await eventually(() => ends(running).at(-1)).toMatchObject({ error: "upstream-unreachable", sent: 0 });
    await running.relay.update([flapping.service]);
  }
  await flapping.close();
});
