import { mkdtempSync, renameSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createSocketServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createControlClient } from "../../src/client/control-client.js";
import type { FollowItem } from "../../src/client/follow-events.js";
import { CodedError } from "../../src/coded-error.js";
import type { AgentidEvent } from "../../src/control-api/events.js";
import { playDaemon } from "../dashboard/played-daemon.js";
import { call, numbered, trustDomainStatus } from "../dashboard/recorded-events.js";

let directory: string;
let socketPath: string;
let server: Server | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "agentid-client-"));
  socketPath = join(directory, "control.sock");
});
afterEach(async () => {
  server?.closeAllConnections();
  await new Promise((resolve) => (server === undefined ? resolve(undefined) : server.close(resolve)));
  server = undefined;
  rmSync(directory, { recursive: true, force: true });
});

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

async function serve(handler: Handler): Promise<void> {
  server = createServer(handler);
  await new Promise<void>((resolve) => server?.listen(socketPath, resolve));
}

async function thrownBy(promise: Promise<unknown>): Promise<CodedError> {
  const thrown = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(thrown instanceof CodedError)) throw new Error(`expected a CodedError, got ${thrown}`);
  return thrown;
}

async function collect(events: AsyncIterable<AgentidEvent>): Promise<AgentidEvent[]> {
  const collected: AgentidEvent[] = [];
  for await (const event of events) collected.push(event);
  return collected;
}

describe("call", () => {
  test("sends what the route says and gives its validated answer", async () => {
    const seen: string[] = [];
    await serve((request, response) => {
      let body = "";
      request.on("data", (chunk) => {
        body += chunk;
      });
      request.on("end", () => {
        seen.push(`${request.method} ${request.url} ${request.headers.host} ${body}`);
        response.end(
          JSON.stringify(request.url === "/v1/rotate" ? { rotated: ["agents/billing"] } : trustDomainStatus(0)),
        );
      });
    });
    const client = createControlClient(socketPath);
    expect((await client.call("status", {})).trustDomain).toBe("shop.local");
    expect(await client.call("rotate", { name: "agents/billing" })).toEqual({ rotated: ["agents/billing"] });
    expect(seen).toEqual(["GET /v1/status localhost ", 'POST /v1/rotate localhost {"name":"agents/billing"}']);
  });

  test("a query value cannot become another parameter", async () => {
    let url = "";
    await serve((request, response) => {
      url = request.url ?? "";
      response.statusCode = 404;
      response.end("{}");
    });
    await thrownBy(createControlClient(socketPath).call("explain", { decision: "a&b=c#d" }));
    expect(new URL(url, "http://localhost").searchParams.get("decision")).toBe("a&b=c#d");
  });

  test("a problem document becomes an error with its code, detail and hint", async () => {
    await serve((_request, response) => {
      response.writeHead(404, { "content-type": "application/problem+json" });
      const problem = {
        type: "about:blank",
        title: "no",
        status: 404,
        code: "decision-unknown",
        detail: "no such decision",
      };
      response.end(JSON.stringify({ ...problem, hint: "ids have 16 characters" }));
    });
    const thrown = await thrownBy(createControlClient(socketPath).call("explain", { decision: "x" }));
    expect([thrown.code, thrown.message, thrown.hint]).toEqual([
      "decision-unknown",
      "no such decision",
      "ids have 16 characters",
    ]);
  });

  test.each([
    ["another shape", 200, '{"trustDomain":1}'],
    ["no JSON", 200, "<html>"],
    ["an error that is no problem document", 500, "oops"],
  ])("%s is refused", async (_name, statusCode, body) => {
    await serve((_request, response) => {
      response.statusCode = statusCode;
      response.end(body);
    });
    expect((await thrownBy(createControlClient(socketPath).call("status", {}))).code).toBe("control-answer-invalid");
  });

  test("no socket, and a socket that nobody listens on, are a daemon that does not run", async () => {
    const client = createControlClient(socketPath);
    const missing = await thrownBy(client.call("status", {}));
    expect([missing.code, missing.hint]).toEqual(["daemon-not-running", expect.stringContaining("agentid dev")]);

    // A daemon that was killed leaves such a file.
    const dead = createSocketServer();
    await new Promise<void>((resolve) => dead.listen(socketPath, resolve));
    renameSync(socketPath, `${socketPath}.kept`);
    await new Promise((resolve) => dead.close(resolve));
    const stale = await thrownBy(createControlClient(`${socketPath}.kept`).call("status", {}));
    expect(stale.code).toBe("daemon-not-running");
  });

  test("a daemon that hangs up, and one that says nothing, have codes of their own", async () => {
    await serve((request, response) => {
      if (request.url === "/v1/status") response.socket?.destroy();
    });
    const client = createControlClient(socketPath);
    expect((await thrownBy(client.call("status", {}))).code).toBe("control-connection-lost");
    expect((await thrownBy(client.call("rotate", {}, { timeoutMs: 50 }))).code).toBe("control-timeout");
  });

  test("an answer that breaks off is no answer", async () => {
    await serve((_request, response) => {
      response.writeHead(200, { "content-length": "1000" });
      response.write("{", () => response.socket?.destroy());
    });
    expect((await thrownBy(createControlClient(socketPath).call("status", {}))).code).toBe("control-connection-lost");
  });
});

describe("events", () => {
  const first = numbered(call({ summary: "refund → 4200 € für 🧾" }), 1);
  const second = numbered(call(), 2);

  test("chunks may end anywhere, inside a line and inside a character", async () => {
    const bytes = Buffer.from(`${JSON.stringify(first)}\n\r\n${JSON.stringify(second)}\n`);
    await serve((_request, response) => {
      let at = 0;
      function next(): void {
        if (at >= bytes.length) response.end();
        else response.write(bytes.subarray(at, ++at), next);
      }
      next();
    });
    expect(await collect(createControlClient(socketPath).events({ since: 0 }))).toEqual([first, second]);
  });

  test("a last line without its end is dropped; an unknown kind is left out", async () => {
    await serve((_request, response) => {
      response.write(`{"event":"from-the-future","x":1}\n${JSON.stringify(first)}\n`);
      response.end(JSON.stringify(second).slice(0, 20));
    });
    expect(await collect(createControlClient(socketPath).events())).toEqual([first]);
  });

  test.each([
    ["a known kind of another shape", '{"event":"call"}\n', "control-answer-invalid"],
    ["no JSON", "hello\n", "control-answer-invalid"],
    ["no UTF-8", Buffer.from([0x22, 0xff, 0xfe, 0x0a]), "ndjson-not-utf8"],
    ["an endless line", "x".repeat(1_100_000), "ndjson-line-too-long"],
  ])("%s is refused", async (_name, body, code) => {
    await serve((_request, response) => {
      response.end(body);
    });
    expect((await thrownBy(collect(createControlClient(socketPath).events()))).code).toBe(code);
  });

  test("an aborted stream ends without an error, and the connection goes", async () => {
    let closed: Promise<void> | undefined;
    await serve((request, response) => {
      closed = new Promise((resolve) => request.on("close", resolve));
      response.write(`${JSON.stringify(first)}\n`);
    });
    const stopping = new AbortController();
    const seen: AgentidEvent[] = [];
    for await (const event of createControlClient(socketPath).events({ signal: stopping.signal })) {
      seen.push(event);
      stopping.abort();
    }
    expect(seen).toEqual([first]);
    await closed;
  });
});

describe("follow", () => {
  test("goes on behind the last event after a loss, and begins anew with another daemon", async () => {
    const daemon = await playDaemon();
    const stopping = new AbortController();
    const items = createControlClient(daemon.socketPath)
      .follow({ since: 0, signal: stopping.signal })
      [Symbol.asyncIterator]();
    const next = async (): Promise<FollowItem> => (await items.next()).value;
    async function nextButLost(): Promise<FollowItem> {
      for (;;) {
        const item = await next();
        if (item.kind !== "lost") return item;
      }
    }

    const one = daemon.emit(call({ decision: "one" }));
    expect(await next()).toMatchObject({ kind: "connected", restarted: false });
    expect(await next()).toEqual({ kind: "event", event: one });

    await daemon.stop();
    expect(await next()).toMatchObject({ kind: "lost", retryInMs: 250 });
    const two = daemon.emit(call({ decision: "two" }));
    await daemon.start();
    expect(await nextButLost()).toMatchObject({ kind: "connected", restarted: false });
    expect(await next()).toEqual({ kind: "event", event: two });

    await daemon.stop();
    expect(await next()).toMatchObject({ kind: "lost" });
    await daemon.start(5001);
    const three = daemon.emit(call({ decision: "three" }));
    expect(await nextButLost()).toMatchObject({ kind: "connected", restarted: true });
    expect(await next()).toEqual({ kind: "event", event: three });

    stopping.abort();
    expect((await items.next()).done).toBe(true);
    await daemon.remove();
  });

  test("waits longer after each failure, and ends at once when it is told to", async () => {
    const stopping = new AbortController();
    const delays: number[] = [];
    for await (const item of createControlClient(socketPath).follow({ signal: stopping.signal })) {
      if (item.kind !== "lost") continue;
      expect(item.code).toBe("daemon-not-running");
      delays.push(item.retryInMs);
      if (delays.length === 3) stopping.abort();
    }
    expect(delays).toEqual([250, 500, 1000]);
  });
});
