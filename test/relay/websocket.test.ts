import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { secureContextOptions } from "../../src/http/mutual-tls.js";
import type { X509BundleSource } from "../../src/identity/svid-source.js";
import type { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { identity, type RunningRelay, runRelay, testAgent } from "./running-relay.js";
import { runWebSocketService, type WebSocketService } from "./websocket-service.js";

const RULES = `rules:
  - { name: chat, allow: { from: agents/*, to: chat, method: GET, path: /chat/** } }
  - { name: plain-only, allow: { from: agents/*, to: chat, method: GET, path: /plain, context: { protocol: http } } }
`;

let chat: WebSocketService;
let running: RunningRelay;
const clients: WebSocket[] = [];
let revoked: SpiffeId | undefined;
const told = new Set<() => void>();

function revocable(bundles: X509BundleSource): X509BundleSource {
  return {
    ...bundles,
    refusalOf: (id, chain) => (revoked?.equals(id) ? "it was revoked" : bundles.refusalOf(id, chain)),
    onBundleChange(listener) {
      told.add(listener);
      return bundles.onBundleChange(listener);
    },
  };
}

function revoke(id: SpiffeId): void {
  revoked = id;
  for (const listener of told) listener();
}

beforeEach(async () => {
  revoked = undefined;
  told.clear();
  chat = await runWebSocketService("chat");
  running = await runRelay({
    services: [chat.service],
    identities: [testAgent, identity("agents/other")],
    rules: RULES,
    change: (parts) => ({ ...parts, upstreamTimeoutMs: 1_500, bundles: revocable(parts.bundles) }),
  });
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.terminate();
  await running.close();
  chat.close();
});

interface ClientOptions {
  readonly protocols?: string[];
  readonly origin?: string;
  readonly deflate?: boolean;
  readonly headers?: Readonly<Record<string, string>>;
}

interface Way {
  readonly name: string;
  connect(path: string, options?: ClientOptions): WebSocket;
}

function client(url: string, options: ClientOptions, more = {}): WebSocket {
  const { protocols = [], origin, deflate = false, headers = {} } = options;
  const socket = new WebSocket(url, protocols, {
    perMessageDeflate: deflate,
    ...(origin !== undefined && { origin }),
    headers,
    ...more,
  });
  // Told by the events that a test waits for.
  socket.on("error", () => undefined);
  clients.push(socket);
  return socket;
}

const outbound: Way = {
  name: "both legs",
  connect: (path, options = {}) => client(`${running.urlOf("chat").replace("http:", "ws:")}${path}`, options),
};

const inbound: Way = {
  name: "the inbound leg",
  connect: (path, options = {}) => inboundOf(running, path, options),
};

function inboundOf(relay: RunningRelay, path: string, options = {}): WebSocket {
  const { port } = relay.relay.addressesOf("chat")?.mtls ?? {};
  const { cert, key } = secureContextOptions(relay.svidOf("agents/other"));
  return client(`wss://127.0.0.1:${port}${path}`, options, { cert, key, rejectUnauthorized: false });
}

async function open(way: Way, path = "/chat/room"): Promise<WebSocket> {
  const socket = way.connect(path);
  await once(socket, "open");
  return socket;
}

/** What the client is told where no WebSocket is opened. */
async function refusal(socket: WebSocket): Promise<{ status: number | undefined; problem: Record<string, unknown> }> {
  const [, response] = (await once(socket, "unexpected-response")) as [unknown, IncomingMessage];
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode, problem: JSON.parse(text) };
}

async function echoed(socket: WebSocket, message: string | Buffer): Promise<Buffer> {
  socket.send(message);
  const [data] = (await once(socket, "message")) as [Buffer];
  return data;
}

const ACCEPT = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: KEY"];

/** Switches protocols as RFC 6455 has it, or with other headers. */
function accept(request: IncomingMessage, socket: Socket, headers: readonly string[] = ACCEPT): void {
  const key = `${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
  const answer = createHash("sha1").update(key).digest("base64");
  socket.write(`HTTP/1.1 101 Switching Protocols\r\n${headers.join("\r\n").replace("KEY", answer)}\r\n\r\n`);
}

const decisions = () => running.record.entries.filter(({ kind }) => kind === "decision");

describe.each([outbound, inbound])("a WebSocket through $name", (way) => {
  it("carries messages both ways, and is on record as the GET it was opened with", async () => {
    const socket = await open(way);
    expect((await echoed(socket, "hello")).toString()).toBe("hello");
    expect(chat.arrived).toHaveLength(1);
    expect(chat.arrived[0]?.headers["x-forwarded-client-cert"]).toContain("URI=spiffe://shop.local/agents/");
    expect(decisions()).toHaveLength(1);
    expect(decisions()[0]?.fields).toMatchObject({
      ...{ verdict: "ALLOW", action: "GET", target: "/chat/room", rule: "chat", upgrade: "websocket" },
    });
    expect(running.record.entries.at(-1)).toMatchObject({ kind: "call", fields: { status: 101 } });
    expect(running.events.at(-1)).toMatchObject({ event: "call", summary: "GET /chat/room (websocket)" });
    socket.close();
    await once(socket, "close");
    await expect.poll(() => running.events.at(-1)).toMatchObject({ event: "call.ended", status: 101 });
  });

  it("is refused with 403 and problem details where no rule allows it, and never arrives", async () => {
    await open(way);
    const arrived = chat.arrived.length;
    const { status, problem } = await refusal(way.connect("/admin"));
    expect({ status, code: problem.code, rule: problem.rule }).toEqual({
      status: 403,
      code: "denied",
      rule: "default",
    });
    expect(chat.arrived).toHaveLength(arrived);
    expect(decisions().at(-1)?.fields).toMatchObject({ verdict: "DENY", decision: problem.decision, target: "/admin" });
  });

  it("is another request to the rules than a plain GET of the same path", async () => {
    expect(await refusal(way.connect("/plain"))).toMatchObject({ status: 403, problem: { code: "denied" } });
    expect(chat.arrived).toHaveLength(0);
    if (way === outbound) expect((await fetch(`${running.urlOf("chat")}/plain`)).status).toBe(200);
  });

  it("is refused to a page of another origin, and opened for the listener's own", async () => {
    const denied = await refusal(way.connect("/chat/room", { origin: "https://evil.example" }));
    expect(denied).toMatchObject({ status: 403, problem: { code: "origin-foreign" } });
    expect(chat.arrived).toHaveLength(0);
    const port = way === outbound ? new URL(running.urlOf("chat")).port : running.relay.addressesOf("chat")?.mtls.port;
    const own = `${way === outbound ? "http" : "https"}://127.0.0.1:${port}`;
    await once(way.connect("/chat/room", { origin: own }), "open");
    expect(chat.arrived).toHaveLength(1);
  });

  it("is opened by who says that there is no body, as Java does", async () => {
    await once(way.connect("/chat/room", { headers: { "Content-Length": "0" } }), "open");
    expect(chat.arrived).toHaveLength(1);
  });

  it("passes subprotocols, extensions, pings, close codes and reasons through", async () => {
    let closedWith: unknown[] = [];
    chat.opened = (socket) => {
      socket.on("message", (data) => socket.send(data));
      socket.on("close", (code, reason) => {
        closedWith = [code, reason.toString()];
      });
    };
    const socket = way.connect("/chat/room", { protocols: ["v2.chat", "v1.chat"], deflate: true });
    await once(socket, "open");
    expect(socket.protocol).toBe("v2.chat");
    expect(socket.extensions).toContain("permessage-deflate");
    const text = "x".repeat(100_000);
    expect((await echoed(socket, text)).toString()).toBe(text);
    socket.ping("are you there");
    expect(String((await once(socket, "pong"))[0])).toBe("are you there");
    socket.close(4321, "enough");
    expect((await once(socket, "close"))[0]).toBe(4321);
    await expect.poll(() => closedWith).toEqual([4321, "enough"]);
  });

  it("carries the service's close code and reason", async () => {
    chat.opened = (socket) => socket.close(4000, "go away");
    const socket = way.connect("/chat/room");
    const [code, reason] = (await once(socket, "close")) as [number, Buffer];
    expect([code, reason.toString()]).toEqual([4000, "go away"]);
  });

  it("carries large messages unchanged", async () => {
    const message = randomBytes(32 * 1024 * 1024);
    const digest = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
    expect(digest(await echoed(await open(way), message))).toBe(digest(message));
  });

  it("ends for the service when the caller breaks off, and for the caller when the service does", async () => {
    const servers: WebSocket[] = [];
    chat.opened = (socket) => void servers.push(socket);
    const first = await open(way);
    await expect.poll(() => servers.length).toBe(1);
    const gone = once(servers[0] as WebSocket, "close");
    first.terminate();
    expect((await gone)[0]).toBe(1006);
    const second = await open(way);
    await expect.poll(() => servers.length).toBe(2);
    const broken = once(second, "close");
    servers[1]?.terminate();
    expect((await broken)[0]).toBe(1006);
  });

  it("holds a fast service back while its caller does not read", async () => {
    let sent = 0;
    const stuck = new Promise<void>((resolve) => {
      chat.opened = (socket) => {
        const block = Buffer.alloc(256 * 1024);
        const fill = () => {
          if (sent >= 512 * 1024 * 1024) return;
          sent += block.length;
          socket.send(block, fill);
          const before = sent;
          // Nothing is taken any more: the way to the caller is full.
          setTimeout(() => {
            if (sent === before) resolve();
          }, 500);
        };
        fill();
      };
    });
    const socket = await open(way);
    socket.pause();
    await stuck;
    expect(sent).toBeLessThan(64 * 1024 * 1024);
    let read = 0;
    socket.on("message", (data: Buffer) => {
      read += data.length;
    });
    const taken = sent;
    socket.resume();
    await expect.poll(() => read).toBeGreaterThan(taken);
  });

  it("passes another answer than 101 on as it is", async () => {
    chat.switching = (_request, socket) =>
      socket.end('HTTP/1.1 418 Teapot\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"short":"x"}');
    expect(await refusal(way.connect("/chat/room"))).toEqual({ status: 418, problem: { short: "x" } });
    expect(running.record.entries.at(-1)).toMatchObject({ kind: "call", fields: { status: 418 } });
  });

  it.each([
    ["with the answer to another key", ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: AAAA"]],
    ["without an answer to the key", ["Upgrade: websocket", "Connection: Upgrade"]],
    ["to another protocol", ["Upgrade: h2c", "Connection: Upgrade", "Sec-WebSocket-Accept: KEY"]],
    ["without saying to what", ["Sec-WebSocket-Accept: KEY"]],
    [
      "with two answers to the key",
      ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: KEY", "Sec-WebSocket-Accept: x"],
    ],
  ])("is a 502 where the service switches %s, and nothing is carried", async (_what, headers) => {
    chat.switching = accept;
    await once(way.connect("/chat/room"), "upgrade");
    chat.switching = (request, socket) => accept(request, socket, headers);
    expect(await refusal(way.connect("/chat/room"))).toMatchObject({
      status: 502,
      problem: { code: "upstream-response" },
    });
  });

  it("is a 504 where the service does not answer, and a 502 where it hangs up or does not listen", async () => {
    chat.switching = () => undefined;
    expect(await refusal(way.connect("/chat/room"))).toMatchObject({ status: 504 });
    chat.switching = (_request, socket) => socket.destroy();
    expect(await refusal(way.connect("/chat/room"))).toMatchObject({ status: 502 });
    chat.close();
    const { status, problem } = await refusal(way.connect("/chat/room"));
    expect([status, problem.code]).toEqual([502, "upstream-unreachable"]);
  });

  it("is not opened where its outcome cannot be recorded", async () => {
    chat.switching = (request, socket) => {
      running.record.writable = false;
      accept(request, socket);
    };
    expect(await refusal(way.connect("/chat/room"))).toMatchObject({
      status: 503,
      problem: { code: "record-unwritable" },
    });
    running.record.writable = true;
    chat.switching = accept;
    await once(way.connect("/chat/room"), "upgrade");
  });
});

describe("the end of an identity", () => {
  it("closes the WebSockets of a local process that has no identity any more, and nobody else's", async () => {
    const [own, kept] = [await open(outbound), await open(inbound)];
    const closed = once(own, "close");
    running.configure(running.identities.filter(({ name }) => name !== testAgent.name));
    await closed;
    expect((await echoed(kept, "still here")).toString()).toBe("still here");
  });

  it("closes the WebSockets of whoever is revoked at once, and nobody else's", async () => {
    const [kept, own] = [await open(outbound), await open(inbound)];
    const closed = once(own, "close");
    revoke(identity("agents/other").id);
    await closed;
    expect((await echoed(kept, "still here")).toString()).toBe("still here");
    const keptClosed = once(kept, "close");
    revoke(testAgent.id);
    await keptClosed;
  });

  it("closes what goes through both legs when the service is not trusted any more", async () => {
    const own = await open(outbound);
    const closed = once(own, "close");
    revoke(chat.service.id);
    await closed;
  });

  it("keeps a local caller's open through the end of its certificate, and closes a foreign one's 30 s after it", async () => {
    const clock = createTestClock(Date.now());
    const relay = await runRelay({
      services: [chat.service],
      identities: [testAgent, identity("agents/other")],
      rules: RULES,
      clock,
    });
    const local = client(`${relay.urlOf("chat").replace("http:", "ws:")}/chat/room`, {});
    const foreign = inboundOf(relay, "/chat/room");
    await Promise.all([once(local, "open"), once(foreign, "open")]);
    const closed = once(foreign, "close");
    clock.advance(601_000);
    expect((await echoed(foreign, "expired")).toString()).toBe("expired");
    clock.advance(30_000);
    await closed;
    expect((await echoed(local, "still here")).toString()).toBe("still here");
    await relay.close();
  });

  it("is the end of WebSockets that are open when the relay closes", async () => {
    const sockets = [await open(outbound), await open(inbound)];
    const closed = sockets.map((socket) => once(socket, "close"));
    await running.relay.close({ graceMs: 50 });
    await Promise.all(closed);
  });
});

it("each direction ends by itself", async () => {
  const got: string[] = [];
  let ended = () => {};
  const asked = new Promise<void>((resolve) => {
    ended = resolve;
  });
  chat.switching = (request, socket) => {
    accept(request, socket);
    socket.on("data", (chunk) => got.push(String(chunk)));
    socket.on("end", () => {
      ended();
      socket.end("after your end");
    });
  };
  const { port } = new URL(running.urlOf("chat"));
  const socket = connect({ host: "127.0.0.1", port: Number(port), allowHalfOpen: true });
  let read = "";
  socket.on("data", (chunk) => {
    read += String(chunk);
  });
  socket.write(
    `GET /chat/x HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\nSec-WebSocket-Version: 13\r\n\r\n`,
  );
  await expect.poll(() => read).toContain("101 Switching Protocols");
  socket.end("before my end");
  await asked;
  await once(socket, "end");
  expect(got.join("")).toBe("before my end");
  expect(read).toMatch(/after your end$/);
});
