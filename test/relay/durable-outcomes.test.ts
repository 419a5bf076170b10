import { once } from "node:events";
import { mkdirSync, rmSync } from "node:fs";
import { createServer, type RequestListener, type ServerResponse } from "node:http";
import { connect } from "node:net";
import { dirname } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { CallStore } from "../../src/durable/call-store.js";
import {
  ask,
  codeOf,
  type DurableRelay,
  type DurableRelayOptions,
  held,
  PATIENT,
  runDurableRelay,
  send,
} from "./durable-relay.js";

let relay: DurableRelay | undefined;

async function running(options: DurableRelayOptions): Promise<DurableRelay> {
  relay = await runDurableRelay(options);
  return relay;
}

afterEach(async () => {
  await relay?.close();
  relay = undefined;
});

/** Breaks off instead of its first answer. */
function failsFirst(): { listener: RequestListener; bodies: string[] } {
  const bodies: string[] = [];
  const listener: RequestListener = (request, response) => {
    request.setEncoding("utf8").on("data", () => undefined);
    request.on("end", () => {
      bodies.push(request.url ?? "");
      if (bodies.length === 1) request.socket.destroy();
      else response.end("done");
    });
  };
  return { listener, bodies };
}

describe("a call whose outcome nobody knows", () => {
  it("is not sent again: the service broke off", async () => {
    const { listener, bodies } = failsFirst();
    const { url, outcomes } = await running({ answer: listener });
    expect((await ask(url, { key: "k" })).status).toBe(502);
    for (const again of [await ask(url, { key: "k" }), await ask(url, { key: "k" })]) {
      expect([again.status, codeOf(again)]).toEqual([409, "outcome-unknown"]);
    }
    expect(bodies).toHaveLength(1);
    expect(outcomes()).toMatchObject([
      { status: 502, error: "upstream-failed" },
      { status: 409, error: "outcome-unknown" },
      { status: 409, error: "outcome-unknown" },
    ]);
    // The control: with another key it is another call.
    expect(await ask(url, { key: "new" })).toMatchObject({ status: 200, body: "done" });
  });

  it("is not sent again: the answer broke off", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    const first = ask(url, { key: "k" });
    const { response } = await service.at(0);
    response.writeHead(200, { "Content-Length": 10 });
    response.write("half");
    response.socket?.destroySoon();
    await expect(first).rejects.toThrow();
    expect(codeOf(await ask(url, { key: "k" }))).toBe("outcome-unknown");
    expect(service.arrived).toHaveLength(1);
  });

  it("stays another call than one with another body", async () => {
    const { listener } = failsFirst();
    const { url } = await running({ answer: listener });
    await ask(url, { key: "k", body: "1" });
    expect((await ask(url, { key: "k", body: "2" })).status).toBe(422);
  });

  it.each([
    ["its method", [{ method: "PUT" }], "PUT", "/v1/orders", true],
    ["its path", [{ path: "/v1/*" }], "POST", "/v1/orders", true],
    ["both", [{ method: "PUT", path: "/v1/**" }], "PUT", "/v1/orders/7", true],
    ["one of several", [{ method: "DELETE" }, { method: "PUT" }], "PUT", "/v1/orders", true],
    ["another method", [{ method: "PUT", path: "/v1/*" }], "DELETE", "/v1/orders", false],
    ["another path", [{ path: "/v1/*" }], "PUT", "/v1/orders/7", false],
    ["a tool", [{ tool: "*" }], "PUT", "/v1/orders", false],
    ["nothing, though PUT should be idempotent", [], "PUT", "/v1/orders", false],
  ])("is sent again where its route is marked idempotent: by %s", async (_, idempotent, method, path, isSent) => {
    const { listener, bodies } = failsFirst();
    const { url } = await running({ answer: listener, service: { idempotent } });
    await ask(url, { key: "k", method, path, body: "1" });
    // Another request stays another one.
    expect((await ask(url, { key: "k", method, path, body: "2" })).status).toBe(422);
    expect(bodies).toHaveLength(1);
    expect((await ask(url, { key: "k", method, path, body: "1" })).status).toBe(isSent ? 200 : 409);
    expect(bodies).toHaveLength(isSent ? 2 : 1);
    if (isSent) {
      expect((await ask(url, { key: "k", method, path, body: "1" })).headers["idempotency-replayed"]).toBe("true");
      expect(bodies).toHaveLength(2);
    }
  });

  it("of an idempotent route does not run twice at once all the same", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener, service: { idempotent: [{ method: "POST" }] } });
    const first = ask(url, { key: "k" });
    const { response } = await service.at(0);
    const second = ask(url, { key: "k" });
    expect((await ask(url, { key: "k", body: "2" })).status).toBe(422);
    response.end("done");
    expect([(await first).body, (await second).body]).toEqual(["done", "done"]);
    expect(service.arrived).toHaveLength(1);
  });
});

describe("a call that was not sent", () => {
  it("leaves its key free: the service did not listen", async () => {
    const { url, orders } = await running({ answer: (_request, response) => void response.end("done") });
    const { upstream } = orders.service;
    if (upstream.kind !== "unix") throw new Error("no Unix socket");
    orders.close();
    const first = await ask(url, { key: "k" });
    expect([first.status, codeOf(first)]).toEqual([502, "upstream-unreachable"]);
    mkdirSync(dirname(upstream.path), { recursive: true });
    const server = createServer((request, response) => request.resume().on("end", () => response.end("done")));
    await once(server.listen(upstream.path), "listening");
    try {
      expect(await ask(url, { key: "k" })).toMatchObject({ status: 200, body: "done" });
      expect((await ask(url, { key: "k" })).headers["idempotency-replayed"]).toBe("true");
    } finally {
      server.close();
      server.closeAllConnections();
      rmSync(dirname(upstream.path), { recursive: true });
    }
  });

  it("leaves its key free: the caller went before its body was complete", async () => {
    const { url, orders } = await running({
      answer: (request, response) => request.resume().on("end", () => response.end("done")),
    });
    const socket = connect(Number(url.port), "127.0.0.1");
    socket.write(
      `POST /v1/orders HTTP/1.1\r\nHost: ${url.host}\r\nIdempotency-Key: k\r\nContent-Length: 10\r\n\r\nhalf`,
    );
    // A whole call of somebody else, after which the half has come as well.
    await ask(url, { method: "GET" });
    socket.destroy();
    await once(socket, "close");
    expect(await ask(url, { key: "k", body: "half+whole" })).toMatchObject({ status: 200 });
    expect(orders.arrived.map(({ method }) => method)).toEqual(["GET", "POST"]);
  });

  it.each([401, 421, 425, 429])("leaves its key free: the service says so by %i", async (status) => {
    let answers = 0;
    const { url } = await running({
      answer: (request, response) => {
        answers += 1;
        request.resume().on("end", () => response.writeHead(answers === 1 ? status : 200).end());
      },
    });
    expect((await ask(url, { key: "k" })).status).toBe(status);
    expect((await ask(url, { key: "k" })).status).toBe(200);
  });

  it.each([
    [503, { "Retry-After": "1" }, false],
    [503, {}, true],
    [500, { "Retry-After": "1" }, true],
    [500, {}, true],
    [404, {}, true],
    [400, {}, true],
    [302, { Location: "/other" }, true],
  ])("and one that was answered by %i %o is told apart", async (status, headers, isKept) => {
    let answers = 0;
    const { url } = await running({
      answer: (request, response) => {
        answers += 1;
        request.resume().on("end", () => response.writeHead(status, headers).end("said"));
      },
    });
    await ask(url, { key: "k" });
    expect(await ask(url, { key: "k" })).toMatchObject({ status, body: "said" });
    expect(answers).toBe(isKept ? 1 : 2);
  });
});

/** A store that waits with its word that an answer is kept. */
function slowStore() {
  const waiting: (() => void)[] = [];
  return {
    waiting,
    store: (store: CallStore): CallStore => ({
      ...store,
      async answer(request, answer) {
        await new Promise<void>((resolve) => waiting.push(resolve));
        await store.answer(request, answer);
      },
    }),
  };
}

describe("who has seen the end of an answer can rely on it", () => {
  it.each<[string, (response: ServerResponse) => void, (text: string) => boolean]>([
    [
      "of known length",
      (response) => response.writeHead(200, { "Content-Length": 4 }).end("done"),
      (text) => text.includes("done"),
    ],
    [
      "of known length, in parts",
      (response) => {
        response.writeHead(200, { "Content-Length": 8 }).write("part");
        setImmediate(() => response.end("done"));
      },
      (text) => text.includes("done"),
    ],
    [
      "in chunks",
      (response) => {
        response.write("part");
        response.end("done");
      },
      (text) => text.endsWith("0\r\n\r\n"),
    ],
    ["without a body", (response) => response.writeHead(204).end(), (text) => text.includes("204")],
    [
      "with an empty body",
      (response) => response.writeHead(200, { "Content-Length": 0 }).end(),
      (text) => text.includes("200"),
    ],
  ])("%s", async (_, answer, hasEnd) => {
    const { waiting, store } = slowStore();
    const { url } = await running({
      store,
      answer: (request, response) => request.resume().on("end", () => answer(response)),
    });
    let text = "";
    const socket = connect(Number(url.port), "127.0.0.1");
    socket.setEncoding("utf8").on("data", (chunk) => {
      text += String(chunk);
    });
    socket.write(`POST /v1/orders HTTP/1.1\r\nHost: ${url.host}\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n`);
    await expect.poll(() => waiting, PATIENT).toHaveLength(1);
    // Whatever was on its way has come: a whole call of somebody else.
    await ask(url, { method: "GET" });
    expect(hasEnd(text)).toBe(false);
    waiting[0]?.();
    await expect.poll(() => hasEnd(text), PATIENT).toBe(true);
    socket.destroy();
  });
});

describe("a large answer", () => {
  const MEGABYTE = 1024 * 1024;
  it.each([
    ["of a megabyte is kept", MEGABYTE, true],
    ["of more is passed on whole, and not sent again", MEGABYTE + 1, false],
  ])("%s", async (_, size, isKept) => {
    let answers = 0;
    const { url } = await running({
      answer: (request, response) => {
        answers += 1;
        request.resume().on("end", () => response.end("x".repeat(size)));
      },
    });
    expect((await ask(url, { key: "k" })).body.length).toBe(size);
    const again = await ask(url, { key: "k" });
    if (isKept) expect(again).toMatchObject({ status: 200, body: "x".repeat(size) });
    else expect([again.status, codeOf(again)]).toEqual([409, "answer-too-large"]);
    expect(answers).toBe(1);
  });

  it("streams through as it comes", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    const { received, answer } = send(url, { key: "k" });
    const { response } = await service.at(0);
    response.write("first");
    await expect.poll(received, PATIENT).toBe("first");
    response.end("x".repeat(2 * MEGABYTE));
    expect((await answer).body.length).toBe(5 + 2 * MEGABYTE);
    expect(codeOf(await ask(url, { key: "k" }))).toBe("answer-too-large");
  });

  it("is cut where nobody waits for it, and known to have been given", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    const { request } = send(url, { key: "k" });
    const { response } = await service.at(0);
    request.destroy();
    const cut = once(response, "close");
    response.write("x".repeat(4 * MEGABYTE));
    await cut;
    expect(codeOf(await ask(url, { key: "k" }))).toBe("answer-too-large");
  });
});

describe("a caller that reads slowly and goes", () => {
  it("holds the call back, and then no more", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    const socket = connect(Number(url.port), "127.0.0.1");
    socket.pause();
    socket.write(`POST /v1/orders HTTP/1.1\r\nHost: ${url.host}\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n`);
    const { response } = await service.at(0);
    response.end("x".repeat(1024 * 1024));
    // A whole call of somebody else: by then as much has come as fits on the way.
    const other = ask(url, { method: "GET" });
    (await service.at(1)).response.end();
    await other;
    socket.destroy();
    expect((await ask(url, { key: "k" })).body.length).toBe(1024 * 1024);
    expect(service.arrived).toHaveLength(2);
  });
});
