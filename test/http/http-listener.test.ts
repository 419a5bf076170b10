import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { codeOf } from "../../src/coded-error.js";
import { type HttpListener, type HttpService, serveHttp } from "../../src/http/http-listener.js";
import type { IncomingRequest } from "../../src/http/incoming-request.js";
import type { OutgoingAnswer } from "../../src/http/outgoing-answer.js";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

describe("requests of one connection", () => {
  it("are answered in their order, the next begun when the one before is answered", async () => {
    const answers: OutgoingAnswer[] = [];
    const { caller, asked } = await serving((_request, answer) => void answers.push(answer));
    caller.write(`GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\nConnection: close\r\n\r\n`);
    await until(() => answers.length === 1);
    await delay(20);
    expect(asked.map(({ url }) => url)).toEqual(["/1"]);
    answers[0]?.end("one");
    expect(asked.map(({ url }) => url)).toEqual(["/1", "/2"]);
    answers[1]?.end("two");
    answers[2]?.end("three");
    expect(bodiesOf(await caller.all)).toEqual(["one", "two", "three"]);
  });

  it("are read when the one before is answered: what comes meanwhile is kept", async () => {
    const answers: OutgoingAnswer[] = [];
    const { caller, asked } = await serving((_request, answer) => void answers.push(answer));
    caller.write(GET);
    await until(() => answers.length === 1);
    caller.write("GET /2 HT");
    await delay(20);
    caller.write("TP/1.1\r\nConnection: close\r\n\r\n");
    await delay(20);
    expect(asked).toHaveLength(1);
    answers[0]?.end("one");
    expect(asked).toHaveLength(2);
    answers[1]?.end("two");
    expect(bodiesOf(await caller.all)).toEqual(["one", "two"]);
  });

  it("are not read on and on before the one before is answered", async () => {
    const { caller, asked } = await serving(() => undefined);
    caller.write(`GET /${"a".repeat(8_000)} HTTP/1.1\r\n\r\n`.repeat(4_000));
    await delay(200);
    await stagnates(caller);
    expect(asked).toHaveLength(1);
  });

  it("are so many as come, answered at once, however many", async () => {
    const { caller, asked } = await serving((_request, answer) => answer.end("."));
    caller.write("GET / HTTP/1.1\r\n\r\n".repeat(20_000) + LAST);
    expect(bodiesOf(await caller.all)).toHaveLength(20_001);
    expect(asked).toHaveLength(20_001);
  });

  it("are not read further by a caller that takes no answers", async () => {
    const { caller, asked } = await serving((_request, answer) => answer.end(Buffer.alloc(1024 * 1024)));
    caller.pause();
    caller.write(GET.repeat(1_000));
    await until(() => asked.length > 1);
    await delay(100);
    expect(asked.length).toBeLessThan(50);
  });

  it("end with one that says so: nothing behind it is read", async () => {
    const { caller, asked, refused } = await serving((_request, answer) => answer.end("."));
    caller.write(`${LAST}${GET}`);
    const all = await caller.all;
    expect(all).toContain("Connection: close\r\n");
    expect(bodiesOf(all)).toHaveLength(1);
    expect(asked).toHaveLength(1);
    expect(refused).toEqual([]);
  });

  it("of HTTP/1.0 end with the first, unless the caller keeps it alive", async () => {
    const { caller, asked } = await serving((_request, answer) => answer.end("."));
    caller.write("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    await until(() => asked.length === 1);
    caller.write("GET /2 HTTP/1.0\r\n\r\n");
    const all = await caller.all;
    expect(all).toContain("Connection: keep-alive\r\n");
    expect(bodiesOf(all)).toHaveLength(2);
  });

  it("that come in pieces, with more headers than the parser keeps at a time, are whole", async () => {
    const { caller, asked } = await serving((_request, answer) => answer.end("."));
    const headers = Array.from({ length: 80 }, (_, index) => `X-${index}: ${index}\r\n`).join("");
    for (const piece of [`GET /${"a".repeat(2_000)}`, ` HTTP/1.1\r\n${headers.slice(0, 500)}`, headers.slice(500)]) {
      caller.write(piece);
      await delay(10);
    }
    caller.write("Connection: close\r\n\r\n");
    await caller.all;
    expect(asked[0]?.url).toHaveLength(2_001);
    expect(asked[0]?.rawHeaders).toHaveLength(162);
    expect(asked[0]?.rawHeaders.slice(158, 160)).toEqual(["X-79", "79"]);
  });
});

describe("what is no request", () => {
  const bad: readonly (readonly [string, string, number, string])[] = [
    ["garbage", "GARBAGE\r\n\r\n", 400, "http-malformed"],
    ["a header in two lines", "GET / HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n", 400, "http-malformed"],
    [
      "two lengths",
      "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
      400,
      "transfer-encoding",
    ],
    ["a broken chunk", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, "http-malformed"],
    ["too much of a head", `GET / HTTP/1.1\r\nA: ${"a".repeat(33 * 1024)}\r\n\r\n`, 431, "header-count"],
    ["CONNECT", "CONNECT a:1 HTTP/1.1\r\n\r\nrest", 501, "upgrade-refused"],
    ["half a head, and no more", "GET / HTTP/1.1\r\nHo", 400, "http-malformed"],
  ];
  for (const [name, bytes, status, code] of bad) {
    it(`is refused, on record: ${name}`, async () => {
      const { caller, asked, refused } = await serving((_request, answer) => answer.end("."));
      caller.write(bytes);
      if (name.startsWith("half")) {
        await delay(30);
        caller.end();
      }
      const all = await caller.all;
      expect(all).toMatch(new RegExp(`^HTTP/1.1 ${status} .*"code":"${code}"`, "s"));
      expect(refused).toEqual([code]);
      expect(asked).toEqual([]);
    });

    it(`is refused behind a request, once that is answered: ${name}`, async () => {
      if (name.startsWith("half")) return;
      const { caller, asked, refused } = await serving((_request, answer) => answer.end("."));
      caller.write(GET + bytes);
      const all = await caller.all;
      expect(all).toMatch(new RegExp(`^HTTP/1.1 200 .*HTTP/1.1 ${status} .*"code":"${code}"`, "s"));
      expect(refused).toEqual([code]);
      expect(asked).toHaveLength(1);
    });
  }

  it("is a head that comes too slowly, on record", { timeout: 20_000 }, async () => {
    const { caller, refused } = await serving((_request, answer) => answer.end("."));
    const slow = setInterval(() => caller.write("a"), 500);
    cleanups.push(() => clearInterval(slow));
    caller.write("GET /");
    expect(await caller.all).toMatch(/^HTTP\/1\.1 408 /);
    expect(refused).toEqual(["http-malformed"]);
  });

  it("is not what says nothing: that ends, and nobody hears of it", { timeout: 20_000 }, async () => {
    const { caller, refused } = await serving((_request, answer) => answer.end("."));
    caller.write("\r\n");
    expect(await caller.all).toBe("");
    expect(refused).toEqual([]);
  });

  it("cuts a request whose body it breaks while it is under way", async () => {
    const { caller, asked } = await serving((request) => void request.stream().on("error", () => undefined));
    caller.write("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    await until(() => asked.length === 1);
    caller.write("nonsense\r\n");
    expect(await caller.all).toBe("");
    expect(asked[0]?.complete).toBe(false);
    expect(asked[0]?.error).toMatchObject({ code: "http-malformed" });
  });
});

describe("the body of a request", () => {
  it("is read by who asks for it later, as it came", async () => {
    const { caller, asked } = await serving((request, answer) => {
      setTimeout(() => void buffer(request.stream()).then((body) => answer.end(body)), 50);
    });
    caller.write("POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabc");
    await until(() => asked.length === 1);
    caller.write("def");
    expect(bodiesOf(await caller.all)).toEqual(["abcdef"]);
  });

  it.each([
    ["whatever is read of it later", () => undefined],
    ["as a stream", (request: IncomingRequest) => void request.stream()],
  ])("is read no faster than it is taken: %s", async (_how, begin) => {
    const { caller } = await serving(begin);
    caller.write(`POST / HTTP/1.1\r\nContent-Length: ${64 * 1024 * 1024}\r\n\r\n`);
    caller.write(Buffer.alloc(64 * 1024 * 1024));
    await delay(500);
    await stagnates(caller);
  });

  it("goes on when it is taken again, to its end", async () => {
    const size = 8 * 1024 * 1024;
    const { caller } = await serving((request, answer) => {
      setTimeout(() => void buffer(request.stream()).then((body) => answer.end(String(body.length))), 100);
    });
    caller.write(`POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: ${size}\r\n\r\n`);
    caller.write(Buffer.alloc(size));
    expect(bodiesOf(await caller.all)).toEqual([String(size)]);
  });

  it("is asked for where its caller waits for that, and only when somebody reads it", async () => {
    const { caller, asked } = await serving((request, answer) => {
      if (request.url === "/no") answer.end("no");
      else void buffer(request.stream()).then((body) => answer.end(body));
    });
    caller.write("POST /yes HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    await until(() => caller.received.includes("100 Continue\r\n\r\n"));
    caller.write("ok");
    await until(() => caller.received.endsWith("ok"));
    caller.write("POST /no HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    const all = await caller.all;
    expect(all.split("100 Continue")).toHaveLength(2);
    expect(all).toMatch(/Connection: close\r\n\r\nno$/);
    expect(asked).toHaveLength(2);
  });

  it("that is not read to its end makes its answer the last", async () => {
    const { caller, asked } = await serving((_request, answer) => answer.end("no"));
    caller.write(`POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n${GET}`);
    expect(bodiesOf(await caller.all)).toEqual(["no"]);
    expect(asked).toHaveLength(1);
  });

  it("that nobody wants is taken all the same: its caller may hear the answer when all of it is sent", async () => {
    const { port } = await serving((_request, answer) => void setTimeout(() => answer.end("no"), 50));
    // It keeps its side open, as one does that sends and then listens.
    const caller = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    cleanups.push(() => caller.destroy());
    caller.write("POST / HTTP/1.1\r\nContent-Length: 30000000\r\n\r\n");
    await new Promise<void>((resolve, reject) => {
      caller.once("error", reject);
      caller.write(Buffer.alloc(30_000_000), () => resolve());
    });
    caller.end();
    expect(bodiesOf((await buffer(caller)).toString("latin1"))).toEqual(["no"]);
  });

  it("that has come to its end unread does not", async () => {
    const { caller, asked } = await serving((_request, answer) => answer.end("no"));
    caller.write(`POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc${LAST}`);
    expect(bodiesOf(await caller.all)).toEqual(["no", "no"]);
    expect(asked).toHaveLength(2);
  });

  it("ends its connection where whoever reads it fails, and no other", async () => {
    const { caller, port } = await serving((request, answer) => {
      request.read({
        data() {
          if (request.url === "/bad") throw new Error("cannot read that");
        },
        end: () => answer.end("read"),
        failed: () => undefined,
      });
    });
    const other = callTo(port);
    other.write("POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\na");
    caller.write("POST /bad HTTP/1.1\r\nContent-Length: 2\r\n\r\n");
    await delay(20);
    caller.write("a");
    expect(await caller.all).toBe("");
    other.write("b");
    expect(bodiesOf(await other.all)).toEqual(["read"]);
  });

  it("breaks off with its connection", async () => {
    const { caller, asked } = await serving((request) => void request.stream().on("error", () => undefined));
    caller.write("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc");
    await until(() => asked.length === 1);
    caller.destroy();
    await until(() => asked[0]?.error !== undefined);
    expect(codeOf(asked[0]?.error)).toBe("ECONNRESET");
  });

  it("is dropped with its trailers, of which nothing was decided", async () => {
    const { caller, asked } = await serving((_request, answer) => answer.end("."));
    caller.write(`POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nHost: evil\r\n\r\n${LAST}`);
    expect(bodiesOf(await caller.all)).toHaveLength(2);
    expect(asked[1]?.rawHeaders).toEqual(["Host", "a", "Connection", "close"]);
  });
});

describe("an answer", () => {
  it("says its length, its date, and how long its connection is kept", async () => {
    const { caller } = await serving((_request, answer) => answer.end("four"));
    caller.write(GET);
    await until(() => caller.received.endsWith("four"));
    expect(caller.received).toMatch(
      /^HTTP\/1\.1 200 OK\r\nDate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\nContent-Length: 4\r\nConnection: keep-alive\r\nKeep-Alive: timeout=65\r\n\r\nfour$/,
    );
  });

  it("keeps the date that it has", async () => {
    const { caller } = await serving((_request, answer) => {
      answer.writeHead(200, ["date", "Mon, 01 Jan 2024 00:00:00 GMT"]);
      answer.end("");
    });
    caller.write(LAST);
    expect((await caller.all).match(/date:/gi)).toHaveLength(1);
  });

  it("of unknown length comes in chunks, small and large, and none of them empty", async () => {
    const large = Buffer.alloc(100_000, "l");
    const { caller } = await serving((_request, answer) => {
      answer.writeHead(200, []);
      answer.flushHeaders();
      answer.write(Buffer.from("ab"));
      answer.write(Buffer.alloc(0));
      answer.write(large);
      answer.end(Buffer.from("yz"));
    });
    caller.write(LAST);
    const all = await caller.all;
    const [head = "", ...body] = all.split("\r\n\r\n");
    expect(head).toContain("Transfer-Encoding: chunked");
    expect(body.join("\r\n\r\n")).toBe(`2\r\nab\r\n186a0\r\n${large}\r\n2\r\nyz\r\n0\r\n\r\n`);
  });

  it("of unknown length to HTTP/1.0 ends with its connection, also one that would be kept", async () => {
    const { caller } = await serving((_request, answer) => {
      answer.write(Buffer.from("ab"));
      answer.end();
    });
    caller.write("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    expect(await caller.all).toMatch(/\r\nConnection: close\r\n\r\nab$/);
  });

  it.each([
    ["HEAD", 200],
    ["GET", 204],
    ["GET", 304],
  ])("to %s with %d has no body, whatever is written", async (method, status) => {
    const { caller } = await serving((_request, answer) => {
      answer.writeHead(status, ["Content-Length", "4"]);
      answer.write(Buffer.from("fo"));
      answer.end("ur");
    });
    caller.write(`${method} / HTTP/1.1\r\nConnection: close\r\n\r\n`);
    expect(await caller.all).toMatch(/\r\n\r\n$/);
  });

  it("that is shorter than it says ends its connection", async () => {
    const { caller, asked } = await serving((_request, answer) => {
      answer.writeHead(200, ["Content-Length", "4"]);
      answer.end("fou");
    });
    caller.write(GET + GET);
    await caller.all;
    expect(asked).toHaveLength(1);
  });

  it.each([
    ["at once", (answer: OutgoingAnswer) => answer.end("fourty")],
    ["later", (answer: OutgoingAnswer) => answer.write(Buffer.from("fo")) && answer.end("urty")],
  ])("that is longer than it says is cut, and ends its connection: %s", async (_when, send) => {
    const { caller, asked } = await serving((_request, answer) => {
      answer.writeHead(200, ["Content-Length", "4"]);
      send(answer);
    });
    caller.write(GET + GET);
    expect(await caller.all).not.toContain("four");
    expect(asked).toHaveLength(1);
  });

  it.each([
    ["a name with a line in it", ["X\r\nY", "z"]],
    ["a value with a line in it", ["X", "y\r\nZ: z"]],
    ["a value beyond Latin-1", ["X", "\u{2028}"]],
    ["two lengths", ["Content-Length", "1", "content-length", "2"]],
    ["a length that is none", ["Content-Length", "-1"]],
    ["a transfer encoding", ["Transfer-Encoding", "chunked"]],
  ])("is not sent with %s", async (_name, headers) => {
    const { caller } = await serving((_request, answer) => {
      expect(() => answer.writeHead(200, headers)).toThrow(expect.objectContaining({ code: "answer-malformed" }));
      expect(answer.headersSent).toBe(false);
      answer.end("otherwise");
    });
    caller.write(LAST);
    expect(bodiesOf(await caller.all)).toEqual(["otherwise"]);
  });

  it("tells when there is room for more, and when its caller has gone", async () => {
    const events: string[] = [];
    const { caller } = await serving((_request, answer) => {
      answer.on("drain", () => events.push("drain")).on("close", () => events.push("close"));
      answer.on("finish", () => events.push("finish"));
      while (answer.write(Buffer.alloc(1024 * 1024)));
    });
    caller.pause();
    caller.write(GET);
    await delay(50);
    expect(events.filter((event) => event !== "drain")).toEqual([]);
    caller.resume();
    await until(() => events.includes("drain"));
    caller.destroy();
    await until(() => events.includes("close"));
    expect(events).not.toContain("finish");
  });

  it("that is the last is whole also for who takes long to read it", { timeout: 20_000 }, async () => {
    const size = 24 * 1024 * 1024;
    const { caller } = await serving((_request, answer) => {
      answer.writeHead(200, ["Content-Length", String(size)]);
      answer.end(Buffer.alloc(size, "x"));
    });
    caller.pause();
    caller.write(LAST);
    await delay(6_000);
    caller.resume();
    expect(bodiesOf(await caller.all)[0]).toHaveLength(size);
  });

  it("closes once, when it is finished", async () => {
    const events: string[] = [];
    const { caller } = await serving((_request, answer) => {
      answer.on("close", () => events.push("close")).on("finish", () => events.push("finish"));
      answer.end(".");
      answer.end("again");
      answer.write(Buffer.from("more"));
    });
    caller.write(LAST);
    expect(bodiesOf(await caller.all)).toEqual(["."]);
    expect(events).toEqual(["finish", "close"]);
  });

  it("is not awaited by a caller that ends its side", async () => {
    const answers: OutgoingAnswer[] = [];
    const { caller } = await serving((_request, answer) => void answers.push(answer));
    caller.write(GET);
    await until(() => answers.length === 1);
    const closed = once(answers[0] as OutgoingAnswer, "close");
    caller.end();
    await closed;
    expect(answers[0]?.destroyed).toBe(true);
  });
});

describe("a change of protocol", () => {
  const changesProtocol = ({ method }: IncomingRequest) => method === "CONNECT";

  it("hands the socket over, with what came behind the head, and later", async () => {
    const { caller } = await serving(
      (_request, answer, behind) => {
        const socket = answer.handOver();
        socket.write(`over ${behind}`);
        socket.pipe(socket);
      },
      { changesProtocol },
    );
    caller.write("CONNECT a:1 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n");
    await until(() => caller.received === "over GET / HTTP/1.1\r\n");
    caller.end("\r\nmore");
    expect(await caller.all).toBe("over GET / HTTP/1.1\r\n\r\nmore");
  });

  it("waits for the answers before it, and reads nothing meanwhile", async () => {
    const answers: OutgoingAnswer[] = [];
    const { caller, asked } = await serving(
      (request, answer) => {
        if (request.method === "GET") answers.push(answer);
        else answer.handOver().pipe(request.socket);
      },
      { changesProtocol },
    );
    caller.write(`${GET}CONNECT a:1 HTTP/1.1\r\n\r\n`);
    await until(() => answers.length === 1);
    caller.write("GET / HTTP/1.1\r\n\r\n");
    await delay(20);
    answers[0]?.end("one");
    await until(() => caller.received.endsWith("oneGET / HTTP/1.1\r\n\r\n"));
    expect(asked.map(({ method }) => method)).toEqual(["GET", "CONNECT"]);
  });

  it("that is refused is the last answer, and what comes behind it is thrown away", async () => {
    const { caller, asked, refused } = await serving((_request, answer) => answer.end("no"), { changesProtocol });
    caller.write(`CONNECT a:1 HTTP/1.1\r\n\r\n${GET}`);
    await delay(20);
    caller.write(GET);
    expect(bodiesOf(await caller.all)).toEqual(["no"]);
    expect(asked).toHaveLength(1);
    expect(refused).toEqual([]);
  });

  describe("to a protocol that nobody takes is a request like others (RFC 9110 §7.8)", () => {
    const upgrading = (first: string, body = "") =>
      `${first} HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n${body === "" ? "\r\n" : body}`;
    const echo = async (request: IncomingRequest, answer: OutgoingAnswer) =>
      answer.end(`${request.url} ${await buffer(request.stream())}`);
    const BODIES = [
      ["without a body", upgrading("GET /1"), "/1 "],
      ["that says it has none", upgrading("GET /1", "Content-Length: 0\r\n\r\n"), "/1 "],
      ["with a body", upgrading("POST /1", "Content-Length: 4\r\n\r\nbody"), "/1 body"],
      [
        "with a body in chunks",
        upgrading("POST /1", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
        "/1 body",
      ],
    ] as const;

    it.each(BODIES)("%s, and so is the next one on its connection", async (_what, first, answered) => {
      const { caller } = await serving((request, answer) => void echo(request, answer));
      caller.write(first);
      await until(() => caller.received.endsWith(answered));
      caller.write(LAST);
      expect(bodiesOf(await caller.all)).toEqual([answered, "/ "]);
    });

    it.each(BODIES)("%s, also where others come with it", async (_what, first, answered) => {
      const { caller } = await serving((request, answer) => void echo(request, answer));
      caller.write(first + GET + first + LAST);
      expect(bodiesOf(await caller.all)).toEqual([answered, "/ ", answered, "/ "]);
    });

    it("with its body in pieces", async () => {
      const { caller } = await serving((request, answer) => void echo(request, answer));
      caller.write(upgrading("POST /1", "Content-Length: 4\r\n\r\nbo"));
      await delay(20);
      caller.write(`dy${upgrading("GET /2")}`);
      await until(() => caller.received.endsWith("/2 "));
      caller.write(LAST);
      expect(bodiesOf(await caller.all)).toEqual(["/1 body", "/2 ", "/ "]);
    });

    it("whose caller takes it for granted is refused what is no HTTP/1.1", async () => {
      const { caller, asked, refused } = await serving((request, answer) => void echo(request, answer));
      caller.write(`${upgrading("GET /1")}\0\0\0\x04\0\0\0\0\0`);
      expect(await caller.all).toMatch(/^HTTP\/1\.1 200 .*HTTP\/1\.1 400 /s);
      expect(asked).toHaveLength(1);
      expect(refused).toEqual(["http-malformed"]);
    });
  });
});

describe("a listener", () => {
  it("serves so many connections and refuses others in words", async () => {
    const { caller, port, refused } = await serving((_request, answer) => answer.end("."), { maxConnections: 1 });
    caller.write(GET);
    await until(() => caller.received !== "");
    expect(await callTo(port).all).toMatch(/^HTTP\/1\.1 503 .*"code":"connection-limit"/s);
    expect(refused).toEqual(["connection-limit"]);
    caller.destroy();
    await delay(50);
    const next = callTo(port);
    next.write(LAST);
    expect(bodiesOf(await next.all)).toEqual(["."]);
  });

  it("ends idle connections at once when it is closed, and others with their answer", async () => {
    const answers: OutgoingAnswer[] = [];
    const { caller, port, listener } = await serving((_request, answer) => void answers.push(answer));
    const idle = callTo(port);
    await once(idle, "connect");
    caller.write(GET);
    await until(() => answers.length === 1);
    const closed = listener.close(10_000);
    expect(await idle.all).toBe("");
    answers[0]?.end("last");
    expect(await caller.all).toMatch(/Connection: close\r\n\r\nlast$/);
    await closed;
  });

  it("ends a connection behind an answer that had begun before it was closed", async () => {
    const answers: OutgoingAnswer[] = [];
    const { caller, listener } = await serving((_request, answer) => {
      answers.push(answer);
      answer.write(Buffer.from("fi"));
    });
    caller.write(GET);
    await until(() => caller.received.includes("fi"));
    const closed = listener.close(10_000);
    answers[0]?.end("rst");
    expect(await caller.all).toMatch(/rst\r\n0\r\n\r\n$/);
    await closed;
  });

  it("cuts what runs for longer than that", async () => {
    const answers: OutgoingAnswer[] = [];
    const { caller, listener } = await serving((_request, answer) => void answers.push(answer));
    caller.write(GET);
    await until(() => answers.length === 1);
    await listener.close(50);
    expect(await caller.all).toBe("");
  });
});

type Caller = Socket & { received: string; readonly all: Promise<string> };

async function serving(
  request: HttpService["request"],
  options: Partial<HttpService> = {},
): Promise<{ caller: Caller; port: number; asked: IncomingRequest[]; refused: string[]; listener: HttpListener }> {
  const asked: IncomingRequest[] = [];
  const refused: string[] = [];
  const server = createServer();
  const listener = serveHttp(server, {
    refused: (_socket, code) => void refused.push(code),
    request(incoming, answer, behind) {
      asked.push(incoming);
      request(incoming, answer, behind);
    },
    ...options,
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => listener.close(0));
  const { port } = server.address() as AddressInfo;
  return { caller: callTo(port), port, asked, refused, listener };
}

function callTo(port: number): Caller {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: false });
  const caller = Object.assign(socket, { received: "", all: Promise.resolve("") });
  socket.setEncoding("latin1").on("data", (text: string) => {
    caller.received += text;
  });
  socket.on("error", () => undefined);
  caller.all = new Promise((resolve) => void socket.once("close", () => resolve(caller.received)));
  cleanups.push(() => socket.destroy());
  return caller;
}

/** Of answers of known length. */
function bodiesOf(text: string): string[] {
  const bodies: string[] = [];
  for (let rest = text; rest !== ""; ) {
    const end = rest.indexOf("\r\n\r\n") + 4;
    const length = Number(/^content-length: (\d+)/im.exec(rest.slice(0, end))?.[1]);
    bodies.push(rest.slice(end, end + length));
    rest = rest.slice(end + length);
  }
  return bodies;
}

/** Nobody takes what it still has to send. */
async function stagnates(caller: Caller): Promise<void> {
  const { _handle: handle } = caller as unknown as { _handle: { readonly writeQueueSize: number } };
  const left = handle.writeQueueSize;
  expect(left).toBeGreaterThan(0);
  await delay(300);
  expect(handle.writeQueueSize).toBe(left);
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await delay(2);
}
