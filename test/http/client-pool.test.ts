import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Server, Socket } from "node:net";
import { PassThrough, Readable } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { codeOf } from "../../src/coded-error.js";
import { ClientPool, type ClientPoolOptions } from "../../src/http/client-pool.js";
import type { AnswerHandler, AnswerSteering, OutgoingRequest } from "../../src/http/outgoing-call.js";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const GET: OutgoingRequest = { method: "GET", path: "/", headers: ["Host", "localhost"], body: null };
const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

describe("a pool of connections", () => {
  it("uses a connection again once its answer is complete", async () => {
    const { pool, server } = await serving((socket) => void socket.write(OK));
    expect(await answerOf(pool)).toMatchObject({ status: 200, body: "ok" });
    expect(await answerOf(pool)).toMatchObject({ status: 200, body: "ok" });
    expect(server.accepted).toBe(1);
  });

  it("opens no more than it may, and gives who waits what becomes free, first come, first served", async () => {
    const { pool, server } = await serving((socket) => void setImmediate(() => socket.write(OK)), {
      maxConnections: 2,
    });
    const order: number[] = [];
    await Promise.all(
      Array.from({ length: 6 }, async (_, index) => {
        await answerOf(pool, { ...GET, path: `/${index}` });
        order.push(index);
      }),
    );
    expect(server.accepted).toBe(2);
    expect(server.heads.map((head) => head.split(" ")[1])).toEqual(["/0", "/1", "/2", "/3", "/4", "/5"]);
    expect(order).toHaveLength(6);
  });

  it("opens a new one where the server has closed the old one meanwhile", async () => {
    const { pool, server } = await serving((socket) => void socket.write(OK));
    await answerOf(pool);
    const [first] = server.sockets;
    first?.end();
    await once(first as Socket, "close");
    await nextTurn();
    expect(await answerOf(pool)).toMatchObject({ body: "ok" });
    expect(server.accepted).toBe(2);
  });

  it("does not use one again that the server keeps for no longer", async () => {
    const { pool, server } = await serving(
      (socket) => void socket.write("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 2\r\n\r\nok"),
    );
    await answerOf(pool);
    await answerOf(pool);
    expect(server.accepted).toBe(2);
  });

  it("does, where it keeps it longer", async () => {
    const { pool, server } = await serving(
      (socket) => void socket.write("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\nContent-Length: 2\r\n\r\nok"),
    );
    await answerOf(pool);
    await answerOf(pool);
    expect(server.accepted).toBe(1);
  });

  it("ends what nobody has used for a while", async () => {
    const { pool, server } = await serving((socket) => void socket.write(OK), { keepAliveMs: 40 });
    await answerOf(pool);
    await once(server.sockets[0] as Socket, "close");
  });

  it("fails a call whose connection cannot be opened, and no other", async () => {
    const { pool } = await serving((socket) => void socket.write(OK));
    const nowhere = poolTo(await closedPort());
    await expect(answerOf(nowhere)).rejects.toMatchObject({ code: "ECONNREFUSED" });
    expect(await answerOf(pool)).toMatchObject({ status: 200 });
  });

  it("fails a call whose answer does not begin in time, and ends its connection", async () => {
    const { pool, server } = await serving(() => undefined, { answerTimeoutMs: 80 });
    await expect(answerOf(pool)).rejects.toMatchObject({ code: "answer-timeout" });
    await closed(server.sockets[0] as Socket);
  });

  it("fails a call whose connection is closed as it opens, once", async () => {
    let opened = 0;
    const pool = new ClientPool({
      connect: (_onread, settled) => {
        opened += 1;
        const socket = new Socket().destroy();
        socket.once("close", () => settled(socket));
      },
      maxConnections: 1,
      answerTimeoutMs: 30_000,
      keepAliveMs: 4_000,
    });
    await expect(answerOf(pool)).rejects.toMatchObject({ code: "ECONNRESET" });
    expect(opened).toBe(1);
    await pool.close();
  });

  it("lets an answer that has begun take its time", async () => {
    const { pool } = await serving(
      (socket) => {
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
        setTimeout(() => socket.write("k"), 300);
      },
      { answerTimeoutMs: 80 },
    );
    expect(await answerOf(pool)).toMatchObject({ body: "ok" });
  });

  it("closes when what runs and what waits is over, and takes no more", async () => {
    const { pool, server } = await serving((socket) => void setTimeout(() => socket.write(OK), 50), {
      maxConnections: 1,
    });
    const both = Promise.all([answerOf(pool), answerOf(pool)]);
    await until(() => server.heads.length === 1);
    const over = pool.close();
    await expect(answerOf(pool)).rejects.toMatchObject({ code: "connection-closed" });
    expect((await both).map(({ body }) => body)).toEqual(["ok", "ok"]);
    await over;
  });

  it("ends everything when it is destroyed", async () => {
    const { pool, server } = await serving(() => undefined, { maxConnections: 1 });
    const both = Promise.allSettled([answerOf(pool), answerOf(pool)]);
    await until(() => server.heads.length === 1);
    await pool.destroy();
    expect((await both).map((one) => one.status)).toEqual(["rejected", "rejected"]);
  });
});

describe("an answer", () => {
  const whole: readonly (readonly [name: string, bytes: string, body: string])[] = [
    ["with a length", OK, "ok"],
    ["in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\n!!!\r\n0\r\n\r\n", "ok!!!"],
    [
      "in chunks, with trailers",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
      "ok",
    ],
    ["204", "HTTP/1.1 204 No Content\r\n\r\n", ""],
    ["304 with the length of what is not sent", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", ""],
    ["behind interim ones", `HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 P\r\n\r\n${OK}`, "ok"],
    [
      "with many headers",
      `HTTP/1.1 200 OK\r\n${Array.from({ length: 90 }, (_, n) => `X-${n}: ${n}\r\n`).join("")}Content-Length: 2\r\n\r\nok`,
      "ok",
    ],
  ];
  for (const [name, bytes, body] of whole) {
    it(`${name} is complete, whatever pieces it comes in, and the next request goes the same way`, async () => {
      const { pool, server } = await serving((socket, nth) => {
        if (nth % 2 === 0) socket.write(bytes, "latin1");
        else void inPieces(socket, bytes);
      });
      const first = await answerOf(pool);
      const second = await answerOf(pool);
      expect([first.body, second.body]).toEqual([body, body]);
      expect(second.headers).toEqual(first.headers);
      expect(server.accepted).toBe(1);
    });
  }

  it("to HEAD has no body, whatever it says of its length", async () => {
    const { pool, server } = await serving(
      (socket) => void socket.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
    );
    expect(await answerOf(pool, { ...GET, method: "HEAD" })).toMatchObject({ status: 200, body: "" });
    expect(await answerOf(pool, { ...GET, method: "HEAD" })).toMatchObject({ status: 200, body: "" });
    expect(server.accepted).toBe(1);
  });

  for (const [name, head] of [
    ["of HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n"],
    ["without a length", "HTTP/1.1 200 OK\r\n\r\n"],
  ] as const) {
    it(`${name} ends with its connection`, async () => {
      const { pool, server } = await serving((socket) => void socket.end(`${head}all of it`));
      expect(await answerOf(pool)).toMatchObject({ body: "all of it" });
      expect(await answerOf(pool)).toMatchObject({ body: "all of it" });
      expect(server.accepted).toBe(2);
    });
  }

  for (const [name, bytes] of [
    ["with Connection: close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"],
    ["of HTTP/1.0 with a length", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"],
  ] as const) {
    it(`${name} is the last on its connection`, async () => {
      const { pool, server } = await serving((socket) => void socket.write(bytes));
      await answerOf(pool);
      await answerOf(pool);
      expect(server.accepted).toBe(2);
    });
  }

  const broken: readonly (readonly [name: string, bytes: string, code: string])[] = [
    ["that is shorter than it says", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "HPE_INVALID_EOF_STATE"],
    [
      "whose chunks do not end",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
      "HPE_INVALID_EOF_STATE",
    ],
    ["whose head does not end", "HTTP/1.1 200 OK\r\nContent-Le", "HPE_INVALID_EOF_STATE"],
    ["that never begins", "", "ECONNRESET"],
    ["that is not HTTP", "SSH-2.0-OpenSSH_9.9\r\n", "HPE_INVALID_CONSTANT"],
    [
      "with a length and chunks",
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "HPE_INVALID_TRANSFER_ENCODING",
    ],
    [
      "with two lengths",
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
      "HPE_UNEXPECTED_CONTENT_LENGTH",
    ],
    ["whose lines end in LF alone", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "HPE_CR_EXPECTED"],
    [
      "whose header is folded",
      "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
      "HPE_INVALID_HEADER_TOKEN",
    ],
    ["with a head of 20 KiB", `HTTP/1.1 200 OK\r\nX-A: ${"a".repeat(20_000)}\r\n\r\n`, "HPE_HEADER_OVERFLOW"],
    [
      "that switches protocols",
      "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
      "upgrade-unasked",
    ],
    ["that switches without saying to what", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "upgrade-unasked"],
  ];
  for (const [name, bytes, code] of broken) {
    it(`${name} is an error, and its connection is closed`, async () => {
      const { pool, server } = await serving((socket) => {
        if (bytes === "") socket.end();
        else socket.end(bytes, "latin1");
      });
      await expect(answerOf(pool)).rejects.toMatchObject({ code });
      await closed(server.sockets[0] as Socket);
    });
  }

  it("is followed by another one that nobody asked for: who asks next does not get it", async () => {
    const { pool, server } = await serving((socket, nth) => {
      socket.write(nth === 0 ? `${OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil` : OK);
    });
    const both = await Promise.all([answerOf(pool), answerOf(pool)]);
    expect(both.map(({ body }) => body)).toEqual(["ok", "ok"]);
    expect(await answerOf(pool)).toMatchObject({ body: "ok" });
    expect(server.accepted).toBeGreaterThan(1);
  });

  it("is followed by the first bytes of another one: who waits for the connection gets a new one", async () => {
    const { pool, server } = await serving((socket, nth) => void socket.write(nth === 0 ? `${OK}HTTP/1.1 2` : OK), {
      maxConnections: 1,
    });
    const both = await Promise.all([answerOf(pool), answerOf(pool)]);
    expect(both.map(({ body }) => body)).toEqual(["ok", "ok"]);
    expect(server.accepted).toBe(2);
  });

  it("comes before anybody can have asked: nobody gets it, and its connection is closed", async () => {
    const { server, port } = await serving(() => undefined);
    server.onConnection = (socket) => void socket.write(OK);
    const pool = poolTo(port, {
      // Connected for the pool once something has been read.
      connect: (onread, settled) => {
        const callback = (bytes: number) => {
          setImmediate(() => settled(socket));
          return onread.callback(bytes);
        };
        const socket = connect({ host: "127.0.0.1", port, onread: { buffer: onread.buffer, callback } });
      },
    });
    await expect(answerOf(pool)).rejects.toMatchObject({ code: "ECONNRESET" });
    await closed(server.sockets[0] as Socket);
    expect(server.heads).toEqual([]);
  });

  for (const [name, bytes] of [
    ["comes", OK],
    ["begins", "H"],
  ] as const) {
    it(`${name} later on an idle connection: it is closed`, async () => {
      const { pool, server } = await serving((socket) => void socket.write(OK), { keepAliveMs: 600_000 });
      await answerOf(pool);
      server.sockets[0]?.write(bytes);
      await closed(server.sockets[0] as Socket);
      expect(await answerOf(pool)).toMatchObject({ body: "ok" });
      expect(server.accepted).toBe(2);
    });
  }
});

describe("who waits for an answer", () => {
  it("hears nothing while it is paused, and then everything in its order", async () => {
    const size = 1_000_000;
    const { pool } = await serving((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
      socket.write(Buffer.from(Array.from({ length: size }, (_, index) => index % 251)));
    });
    let steering: AnswerSteering | undefined;
    let heard = 0;
    const chunks: Buffer[] = [];
    await new Promise<void>((resolve, reject) => {
      pool.dispatch(
        GET,
        handler({
          onResponseStart: (controller) => {
            steering = controller;
          },
          onResponseData: (controller, chunk) => {
            heard += 1;
            expect(steering).toBe(controller);
            chunks.push(chunk);
            controller.pause();
            const until = heard;
            setImmediate(() => {
              expect(heard).toBe(until);
              controller.resume();
            });
          },
          onResponseEnd: () => resolve(),
          onResponseError: (_, error) => reject(error),
        }),
      );
    });
    const all = Buffer.concat(chunks);
    expect(all).toHaveLength(size);
    expect(all.every((byte, index) => byte === index % 251)).toBe(true);
  });

  it("hears nothing while it is paused of what came together, nor of its end", async () => {
    const chunks = ["one", "two", "three"].map((text) => `${text.length}\r\n${text}\r\n`).join("");
    const { pool } = await serving(
      (socket) => void socket.write(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`),
    );
    const heard: string[] = [];
    let steering: AnswerSteering | undefined;
    pool.dispatch(
      GET,
      handler({
        onResponseData: (controller, chunk) => {
          heard.push(chunk.toString());
          steering = controller;
          controller.pause();
        },
        onResponseEnd: () => void heard.push("end"),
      }),
    );
    await until(() => steering !== undefined);
    for (const known of [["one"], ["one", "two"], ["one", "two", "three"]]) {
      await nextTurn();
      expect(heard).toEqual(known);
      steering?.resume();
    }
    expect(heard).toEqual(["one", "two", "three", "end"]);
    expect(await answerOf(pool)).toMatchObject({ body: "onetwothree" });
  });

  it("keeps the server from sending while it is paused", async () => {
    const { pool, server } = await serving((socket) => {
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
      const fill = () => {
        while (socket.write(Buffer.alloc(65_536)));
        socket.once("drain", fill);
      };
      fill();
    });
    let steering: AnswerSteering | undefined;
    pool.dispatch(
      GET,
      handler({
        onResponseStart: (controller) => {
          steering = controller;
          controller.pause();
        },
      }),
    );
    const sent = async () => {
      const before = server.sockets[0]?.bytesWritten ?? 0;
      for (let turn = 0; turn < 200; turn += 1) await nextTurn();
      return (server.sockets[0]?.bytesWritten ?? 0) - before;
    };
    await until(() => (server.sockets[0]?.bytesWritten ?? 0) > 65_536);
    let idle = 0;
    while (idle < 3) idle = (await sent()) === 0 ? idle + 1 : 0;
    expect(server.sockets[0]?.bytesWritten).toBeLessThan(20_000_000);
    steering?.abort(new Error("enough"));
  });

  it("goes before it begins: nothing is sent, and the connection stays", async () => {
    const { pool, server } = await serving((socket) => void socket.write(OK));
    await answerOf(pool);
    const told: string[] = [];
    pool.dispatch(
      { ...GET, path: "/never" },
      handler({
        onRequestStart: (controller) => controller.abort(new Error("gone")),
        onResponseError: (_, { message }) => void told.push(message),
      }),
    );
    expect(told).toEqual(["gone"]);
    expect(await answerOf(pool)).toMatchObject({ body: "ok" });
    expect(server.accepted).toBe(1);
    expect(server.heads.some((head) => head.includes("/never"))).toBe(false);
  });

  it.each([
    ["that was opened for it stays no longer than one that is not used", undefined],
    ["stays as long as its server keeps it", "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=4\r\nContent-Length: 2\r\n\r\nok"],
  ])("goes before it begins: the connection %s", { timeout: 15_000 }, async (_what, answer) => {
    const { pool, server } = await serving((socket) => void socket.write(answer ?? ""), { keepAliveMs: 600_000 });
    if (answer !== undefined) await answerOf(pool);
    pool.dispatch(GET, handler({ onRequestStart: (controller) => controller.abort(new Error("gone")) }));
    await expect.poll(() => server.accepted).toBe(1);
    await expect.poll(() => server.sockets[0]?.closed, { timeout: 8_000 }).toBe(true);
  });

  it("goes in between: the connection is closed, and is told so once", async () => {
    const { pool, server } = await serving(
      (socket) => void socket.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"),
    );
    const told: string[] = [];
    await new Promise<void>((resolve) => {
      pool.dispatch(
        GET,
        handler({
          onResponseData: (controller) => {
            controller.abort(new Error("gone"));
            controller.abort(new Error("twice"));
            resolve();
          },
          onResponseError: (_, { message }) => void told.push(message),
        }),
      );
    });
    await closed(server.sockets[0] as Socket);
    expect(told).toEqual(["gone"]);
  });

  it("throws: that is an error of this call, and of nothing else", async () => {
    const { pool } = await serving((socket) => void socket.write(OK));
    const error = await new Promise<Error>((resolve) => {
      pool.dispatch(
        GET,
        handler({
          onResponseStart: () => {
            throw new Error("not this one");
          },
          onResponseError: (_, thrown) => resolve(thrown),
        }),
      );
    });
    expect(error.message).toBe("not this one");
    expect(await answerOf(pool)).toMatchObject({ body: "ok" });
  });
});

describe("a request", () => {
  it("with a body that is there says how long it is", async () => {
    const { pool, server } = await echoing();
    expect(await answerOf(pool, { ...GET, method: "POST", body: Buffer.from("hello") })).toMatchObject({
      body: "hello",
    });
    expect(server.last()).toMatchObject({ "content-length": "5" });
  });

  it("that could have a body says that it has none", async () => {
    const { pool, server } = await echoing();
    await answerOf(pool, { ...GET, method: "POST" });
    expect(server.last()).toMatchObject({ "content-length": "0" });
    await answerOf(pool, GET);
    expect(server.last()["content-length"]).toBeUndefined();
  });

  it("with a body that comes goes in chunks, and the connection is used again", async () => {
    const { pool, server } = await echoing();
    const body = () => Readable.from([Buffer.from("one "), Buffer.from("two")]);
    expect(await answerOf(pool, { ...GET, method: "PUT", body: body() })).toMatchObject({ body: "one two" });
    expect(server.last()).toMatchObject({ "transfer-encoding": "chunked" });
    expect(await answerOf(pool, { ...GET, method: "PUT", body: body() })).toMatchObject({ body: "one two" });
    expect(server.connections()).toBe(1);
  });

  it("with a body that comes, of a length that is known, keeps to it", async () => {
    const { pool, server } = await echoing();
    const headers = [...GET.headers, "Content-Length", "7"];
    const body = Readable.from([Buffer.from("one "), Buffer.from("two")]);
    expect(await answerOf(pool, { ...GET, method: "PUT", headers, body })).toMatchObject({ body: "one two" });
    expect(server.last()).toMatchObject({ "content-length": "7" });
  });

  for (const [name, length] of [
    ["longer", "3"],
    ["shorter", "30"],
  ] as const) {
    it(`with a body that is ${name} than was said of it is broken off`, async () => {
      const { pool, server } = await serving(() => undefined);
      const headers = [...GET.headers, "Content-Length", length];
      const body = Readable.from([Buffer.from("one "), Buffer.from("two")]);
      await expect(answerOf(pool, { ...GET, method: "PUT", headers, body })).rejects.toMatchObject({
        code: "body-length",
      });
      await closed(server.sockets[0] as Socket);
    });
  }

  it("whose body breaks off is broken off: the server does not take it for complete", async () => {
    const { pool, server } = await serving(() => undefined);
    const body = new PassThrough();
    const answer = answerOf(pool, { ...GET, method: "PUT", body });
    body.write("part");
    await until(() => server.received().includes("part"));
    body.destroy(new Error("the caller broke off"));
    await expect(answer).rejects.toThrow("the caller broke off");
    await closed(server.sockets[0] as Socket);
    expect(server.received()).not.toContain("0\r\n\r\n");
  });

  it("that is answered before its end is: the rest is not sent, and the connection is not used again", async () => {
    const { pool, server } = await serving((socket) => void socket.write(OK));
    const body = new PassThrough();
    const answer = answerOf(pool, { ...GET, method: "PUT", body });
    body.write("part");
    expect(await answer).toMatchObject({ body: "ok" });
    body.end(" and the rest");
    await closed(server.sockets[0] as Socket);
    expect(await answerOf(pool)).toMatchObject({ body: "ok" });
    expect(server.accepted).toBe(2);
  });

  it("that is refused before it is read, and its connection ended: the answer is heard", async () => {
    const body = new PassThrough();
    const { pool } = await serving((socket) => {
      socket.pause();
      socket.write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\ntoo");
      // What has come and was not read makes the end of it an RST: the next piece meets that before the answer is looked at.
      setImmediate(() => {
        socket.destroy();
        body.write(Buffer.alloc(1_000));
      });
    });
    body.write(Buffer.alloc(2_000_000));
    expect(await answerOf(pool, { ...GET, method: "PUT", body })).toMatchObject({ status: 413, body: "too" });
  });

  it("whose connection is ended before it is read, and not answered, fails", async () => {
    const { pool } = await serving((socket) => {
      socket.pause();
      setTimeout(() => socket.destroy(), 20);
    });
    const body = Readable.from(Array.from({ length: 400 }, () => Buffer.alloc(65_536)));
    await expect(answerOf(pool, { ...GET, method: "PUT", body })).rejects.toThrow(/EPIPE|ECONNRESET/);
  });

  it("waits for a server that does not read", async () => {
    const { pool, server } = await serving(() => undefined);
    server.onConnection = (socket) => void socket.pause();
    const body = new Readable({
      read() {
        setImmediate(() => this.push(Buffer.alloc(65_536)));
      },
    });
    const failed = answerOf(pool, { ...GET, method: "PUT", body }).catch(codeOf);
    await until(() => server.accepted === 1);
    let produced = 0;
    body.on("data", (chunk: Buffer) => {
      produced += chunk.length;
    });
    let still = 0;
    while (still < 3 && produced < 100_000_000) {
      const before = produced;
      for (let turn = 0; turn < 200; turn += 1) await nextTurn();
      still = produced === before ? still + 1 : 0;
    }
    expect(produced).toBeLessThan(20_000_000);
    await pool.destroy();
    await failed;
  });

  const bad: readonly (readonly [name: string, more: Partial<OutgoingRequest>])[] = [
    ["whose path has a line end", { path: "/a\r\nX: y" }],
    ["whose path has a blank", { path: "/a b" }],
    ["whose path is empty", { path: "" }],
    ["whose method is no token", { method: "GET /x HTTP/1.1\r\n" }],
    ["with a line end in a value", { headers: ["X-A", "b\r\nX-C: d"] }],
    ["with NUL in a value", { headers: ["X-A", "b\0"] }],
    ["with a value that is not Latin-1", { headers: ["X-A", "\u0100"] }],
    ["with a line end in a name", { headers: ["X-A\r\nX-B", "c"] }],
    ["with a blank in a name", { headers: ["X A", "c"] }],
    ["with an empty name", { headers: ["", "c"] }],
    ["with a length that is none", { headers: ["Content-Length", "+2"], body: Buffer.from("ab") }],
    ["with two lengths", { headers: ["Content-Length", "2", "content-length", "2"], body: Buffer.from("ab") }],
    ["with the length of another body", { headers: ["Content-Length", "3"], body: Buffer.from("ab") }],
    ["with the length of a body that it does not have", { headers: ["Content-Length", "3"] }],
  ];
  for (const [name, more] of bad) {
    it(`${name} is not sent`, async () => {
      const { pool, server } = await serving((socket) => void socket.write(OK));
      await answerOf(pool);
      await expect(answerOf(pool, { ...GET, method: "POST", ...more })).rejects.toMatchObject({
        code: "request-malformed",
      });
      expect(server.heads).toHaveLength(1);
      expect(await answerOf(pool)).toMatchObject({ body: "ok" });
      expect(server.accepted).toBe(1);
    });
  }
});

interface Answer {
  readonly status: number;
  readonly headers: readonly string[];
  readonly body: string;
}

function answerOf(pool: ClientPool, request = GET): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let status = 0;
    const chunks: Buffer[] = [];
    pool.dispatch(
      request,
      handler({
        onResponseStart: (_, began) => {
          status = began;
        },
        onResponseData: (_, chunk) => void chunks.push(chunk),
        onResponseEnd: ({ rawHeaders }) =>
          resolve({ status, headers: rawHeaders as readonly string[], body: Buffer.concat(chunks).toString() }),
        onResponseError: (_, error) => reject(error),
      }),
    );
  });
}

function handler(some: Partial<AnswerHandler>): AnswerHandler {
  const nothing = () => undefined;
  return {
    onRequestStart: nothing,
    onResponseStart: nothing,
    onResponseData: nothing,
    onResponseEnd: nothing,
    onResponseError: nothing,
    ...some,
  };
}

function poolTo(port: number, options: Partial<ClientPoolOptions> = {}): ClientPool {
  const pool = new ClientPool({
    connect: (onread, settled) => {
      const socket = connect({ host: "127.0.0.1", port, onread, noDelay: true });
      socket.once("error", settled);
      socket.once("connect", () => {
        socket.off("error", settled);
        settled(socket);
      });
    },
    maxConnections: 16,
    answerTimeoutMs: 30_000,
    keepAliveMs: 4_000,
    ...options,
  });
  cleanups.push(() => pool.destroy());
  return pool;
}

/** A server of bytes: `answer` has each head of a request that comes, and how many came before it. */
async function serving(answer: (socket: Socket, nth: number) => void, options: Partial<ClientPoolOptions> = {}) {
  const sockets: Socket[] = [];
  const heads: string[] = [];
  let all = "";
  const known = {
    sockets,
    heads,
    accepted: 0,
    received: () => all,
    onConnection: (_socket: Socket): void => undefined,
  };
  const server = createServer((socket) => {
    known.accepted += 1;
    sockets.push(socket);
    let text = "";
    socket.on("error", () => undefined);
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      all += chunk.toString("latin1");
      for (let end = text.indexOf("\r\n\r\n"); /^[A-Z]+ /.test(text) && end >= 0; end = text.indexOf("\r\n\r\n")) {
        heads.push(text.slice(0, end));
        text = text.slice(end + 4);
        answer(socket, heads.length - 1);
      }
    });
    known.onConnection(socket);
  });
  const port = await listening(server);
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { pool: poolTo(port, options), server: known, port };
}

/** A server of Node's that sends back what it gets. */
async function echoing() {
  let last: Record<string, unknown> = {};
  let connections = 0;
  const server = createHttpServer((request, response) => {
    last = request.headers;
    request.pipe(response);
  });
  server.on("connection", () => {
    connections += 1;
  });
  const port = await listening(server);
  cleanups.push(() => server.close());
  return { pool: poolTo(port), server: { last: () => last, connections: () => connections } };
}

async function inPieces(socket: Socket, bytes: string): Promise<void> {
  for (const byte of bytes) {
    socket.write(byte, "latin1");
    await nextTurn();
  }
}

async function listening(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

async function closedPort(): Promise<number> {
  const server = createServer();
  const port = await listening(server);
  server.close();
  await once(server, "close");
  return port;
}

async function closed(socket: Socket): Promise<void> {
  if (!socket.closed) await once(socket, "close");
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await nextTurn();
}
