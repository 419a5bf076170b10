import { randomBytes } from "node:crypto";
import { connect as connectTcp, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { secureContextOf } from "../../src/http/mutual-tls.js";
import { type RunningRelay, runRelay } from "./running-relay.js";
import { runWebSocketService, type WebSocketService } from "./websocket-service.js";

/** A handshake that is none, and why. Lines without a value take the good line of that name out. */
interface BadHandshake {
  readonly what: string;
  readonly request?: string;
  readonly lines?: readonly string[];
  readonly body?: string;
  readonly status: number;
  readonly code: string;
}

const bad = (what: string, lines: readonly string[], status = 400, code = "websocket-handshake"): BadHandshake => ({
  ...{ what, lines, status, code },
});

const badHandshakes: readonly BadHandshake[] = [
  { what: "by POST", request: "POST /chat HTTP/1.1", status: 400, code: "websocket-handshake" },
  { what: "in HTTP/1.0", request: "GET /chat HTTP/1.0", status: 400, code: "websocket-handshake" },
  {
    what: "for a path that two servers read differently",
    request: "GET /chat/../admin HTTP/1.1",
    status: 400,
    code: "target-dot-segment",
  },
  { what: "for an absolute target", request: "GET ws://127.0.0.1/chat HTTP/1.1", status: 400, code: "target-form" },
  bad("without a key", ["Sec-WebSocket-Key"]),
  bad("with a key of 15 bytes", [`Sec-WebSocket-Key: ${Buffer.alloc(15).toString("base64")}`]),
  bad("with a key of 17 bytes", [`Sec-WebSocket-Key: ${Buffer.alloc(17).toString("base64")}`]),
  bad("with a key in another form of base64", ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAB=="]),
  bad("with a key that is no base64", ["Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="]),
  bad("with two keys", ["Sec-WebSocket-Key: KEY", "Sec-WebSocket-Key: KEY"]),
  bad("without a version", ["Sec-WebSocket-Version"]),
  bad("with two versions", ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"]),
  bad("in version 8", ["Sec-WebSocket-Version: 8"], 426),
  bad("in version 13 of many", ["Sec-WebSocket-Version: 13, 8"], 426),
  bad("with a body of known length", ["Content-Length: 4"]),
  bad("with a body in chunks", ["Transfer-Encoding: chunked"]),
  bad("with a Connection that names the key", ["Connection: Upgrade, Sec-WebSocket-Key"]),
  bad("with a Connection that names what the relay adds", ["Connection: Upgrade, X-Forwarded-Client-Cert"]),
  bad("without Connection: Upgrade", ["Connection"], 501, "upgrade-refused"),
  bad("with Connection: keep-alive", ["Connection: keep-alive"], 501, "upgrade-refused"),
  bad("to bytes", ["Upgrade: tcp"], 501, "upgrade-refused"),
  bad("to TLS or it", ["Upgrade: TLS/1.2, websocket"], 501, "upgrade-refused"),
  bad("to one of two", ["Upgrade: websocket, h2c"], 501, "upgrade-refused"),
  bad("to a version of it", ["Upgrade: websocket/13"], 501, "upgrade-refused"),
  bad("to two", ["Upgrade: websocket", "Upgrade: websocket"], 400, "header-duplicate"),
  bad("with a header that would be read twice", ["Cookie: a=1", "Cookie: b=2"], 400, "header-duplicate"),
  bad("of a foreign origin", ["Origin: https://evil.example"], 403, "origin-foreign"),
  bad("of a sandboxed page", ["Origin: null"], 403, "origin-foreign"),
  bad("of our host on another port", ["Origin: http://127.0.0.1:1"], 403, "origin-foreign"),
  bad("of a WebSocket's scheme", ["Origin: ws://HOST"], 403, "origin-foreign"),
  bad("of another site's page", ["Sec-Fetch-Site: cross-site"], 403, "origin-foreign"),
  bad("for another host", ["Host: evil.example"], 421, "host-unknown"),
];

const GOOD: Readonly<Record<string, string>> = {
  Host: "HOST",
  Connection: "Upgrade",
  Upgrade: "websocket",
  "Sec-WebSocket-Version": "13",
  "Sec-WebSocket-Key": "KEY",
};

let chat: WebSocketService;
let running: RunningRelay;

beforeAll(async () => {
  chat = await runWebSocketService("chat");
  running = await runRelay({
    services: [chat.service],
    rules: "rules:\n  - { name: all, allow: { from: agents/tests, to: chat, path: /chat } }\n",
  });
});

afterAll(async () => {
  await running.close();
  chat.close();
});

interface Listener {
  readonly name: string;
  port(): number;
  connect(): Socket;
}

const outbound: Listener = {
  name: "outbound leg",
  port: () => Number(new URL(running.urlOf("chat")).port),
  connect: () => connectTcp(outbound.port(), "127.0.0.1"),
};

const inbound: Listener = {
  name: "inbound leg",
  port: () => running.relay.addressesOf("chat")?.mtls.port ?? 0,
  connect: () =>
    connectTls({
      ...{ host: "127.0.0.1", port: inbound.port(), rejectUnauthorized: false },
      secureContext: secureContextOf(running.svidOf("agents/tests")),
    }),
};

function bytesOf(
  port: number,
  { request = "GET /chat HTTP/1.1", lines = [] }: Partial<BadHandshake>,
  behind = "",
): string {
  const given = new Set(lines.map((line) => line.split(":")[0]));
  const good = Object.entries(GOOD).filter(([name]) => !given.has(name));
  const head = [...good.map(([name, value]) => `${name}: ${value}`), ...lines.filter((line) => line.includes(":"))];
  return `${[request, ...head].join("\r\n")}\r\n\r\n${behind}`
    .replaceAll("HOST", `127.0.0.1:${port}`)
    .replaceAll("KEY", randomBytes(16).toString("base64"));
}

/** All that comes until the connection is closed, or until protocols are switched. */
function answerTo(socket: Socket, bytes: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    let text = "";
    const done = () => {
      socket.destroy();
      resolve({ status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0), text });
    };
    socket.setTimeout(10_000, () => reject(new Error(`still open after: ${text}`)));
    socket.on("data", (chunk) => {
      text += String(chunk);
      if (text.startsWith("HTTP/1.1 101") && text.includes("\r\n\r\n")) done();
    });
    socket.on("error", done);
    socket.on("close", done);
    socket.write(bytes);
  });
}

describe.each([outbound, inbound])("the $name", (listener) => {
  const hidden = (port: number) => `GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`;

  it.each(badHandshakes)("refuses a WebSocket $what", async (handshake) => {
    const port = listener.port();
    const control = await answerTo(listener.connect(), bytesOf(port, {}));
    expect(control.status).toBe(101);
    const arrived = chat.arrived.length;
    const answer = await answerTo(listener.connect(), bytesOf(port, handshake));
    expect({ status: answer.status, code: /"code":"([a-z-]+)"/.exec(answer.text)?.[1] }).toEqual({
      status: handshake.status,
      code: handshake.code,
    });
    if (handshake.status === 426) expect(answer.text).toMatch(/^Sec-WebSocket-Version: 13\r$/m);
    expect(chat.arrived).toHaveLength(arrived);
    const last = running.record.entries.findLast(({ kind }) => kind === "decision");
    expect(last?.fields).toMatchObject({ verdict: "DENY", rule: handshake.code });
  });

  it("reads nothing behind a handshake that it refuses: the connection ends", async () => {
    const port = listener.port();
    const refusals = [
      bytesOf(port, { lines: ["Origin: https://evil.example"] }, hidden(port)),
      bytesOf(port, { request: "GET /denied HTTP/1.1" }, hidden(port)),
      bytesOf(port, { request: "POST /chat HTTP/1.1", lines: ["Content-Length: 4"] }, `abcd${hidden(port)}`),
    ];
    for (const bytes of refusals) {
      const arrived = chat.arrived.length;
      const { status, text } = await answerTo(listener.connect(), bytes);
      expect(status).toBeGreaterThanOrEqual(400);
      expect(text.match(/^HTTP\/1\.1 \d/gm)).toHaveLength(1);
      expect(text).toMatch(/^connection: close\r$/im);
      expect(chat.arrived).toHaveLength(arrived);
    }
  });

  it("holds back what comes behind a handshake until the service has accepted it", async () => {
    const port = listener.port();
    const before = chat.received().length;
    let accept = () => {};
    const asked = new Promise<void>((resolve) => {
      chat.switching = (_request, socket) => {
        accept = () => {
          socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        };
        resolve();
      };
    });
    const answer = answerTo(listener.connect(), bytesOf(port, {}, hidden(port)));
    await asked;
    accept();
    const { status } = await answer;
    expect(status).toBe(403);
    expect(chat.received().slice(before)).toBe("");
    chat.switching = undefined;
  });

  it("gives the service what came behind a handshake that it has accepted", async () => {
    const messages: string[] = [];
    chat.opened = (socket) => socket.on("message", (data) => messages.push(String(data)));
    // A masked text frame (RFC 6455 §5.7): "Hello".
    const frame = Buffer.from([0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    const socket = listener.connect();
    socket.on("error", () => undefined);
    socket.write(Buffer.concat([Buffer.from(bytesOf(listener.port(), {})), frame]));
    await expect.poll(() => messages).toEqual(["Hello"]);
    socket.destroy();
  });

  it("opens no WebSocket before earlier requests of the connection are answered", async () => {
    const port = listener.port();
    const earlier = `GET /chat HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`;
    const switched = () => chat.arrived.filter(({ headers }) => headers.upgrade !== undefined).length;
    const before = switched();
    let answer: (() => void) | undefined;
    const usual = chat.answer;
    chat.answer = (response) => {
      answer = () => usual(response);
    };
    const socket = listener.connect();
    let read = "";
    socket.on("data", (chunk) => {
      read += String(chunk);
    });
    socket.write(earlier + bytesOf(port, {}));
    await expect.poll(() => answer).toBeDefined();
    await delay(50);
    expect(read).toBe("");
    expect(switched()).toBe(before);
    chat.answer = usual;
    answer?.();
    await expect.poll(() => read).toMatch(/^HTTP\/1\.1 200 .*arrived.*HTTP\/1\.1 101 /s);
    expect(switched()).toBe(before + 1);
    socket.destroy();
  });
});

it("an MCP server has no WebSocket", async () => {
  const mcp = { ...chat.service, name: "tools", id: chat.service.id, protocol: "mcp" as const };
  const relay = await runRelay({
    services: [mcp],
    rules: "rules:\n  - { name: all, allow: { from: agents/tests, to: tools, tools: any } }\n",
  });
  const port = Number(new URL(relay.urlOf("tools")).port);
  const arrived = chat.arrived.length;
  const { text, status } = await answerTo(connectTcp(port, "127.0.0.1"), bytesOf(port, {}));
  expect({ status, refused: text.includes("upgrade-refused") }).toEqual({ status: 501, refused: true });
  expect(chat.arrived).toHaveLength(arrived);
  await relay.close();
});
