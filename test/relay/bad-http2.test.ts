import { connect as connectTcp } from "node:net";
import { connect as connectTls } from "node:tls";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { secureContextOf } from "../../src/http/mutual-tls.js";
import { type GrpcService, runGrpcService } from "./grpc-service.js";
import { exchangeRaw, sendRaw } from "./raw-http.js";
import { block, Flag, Frame, frame, type Head, indexed, RawHttp2 } from "./raw-http2.js";
import { type RunningRelay, runRelay } from "./running-relay.js";

let service: GrpcService;
let running: RunningRelay;
const open: RawHttp2[] = [];

beforeAll(async () => {
  service = await runGrpcService("ledger");
  // Everything is allowed: whatever is refused here is refused for its form alone.
  running = await runRelay({
    services: [service.service],
    rules: "rules:\n  - { name: all, allow: { from: agents/tests, to: ledger } }\n",
  });
});
afterEach(() => {
  for (const connection of open.splice(0)) connection.close();
});
afterAll(async () => {
  await running.close();
  service.close();
});

interface Listener {
  readonly name: string;
  readonly scheme: "http" | "https";
  port(): number;
  connect(): RawHttp2;
}

function speak(socket: ConstructorParameters<typeof RawHttp2>[0]): RawHttp2 {
  const connection = new RawHttp2(socket);
  open.push(connection);
  return connection;
}

const tls = (alpn: string[]) =>
  connectTls({
    ...{ host: "127.0.0.1", port: inbound.port(), rejectUnauthorized: false, ALPNProtocols: alpn },
    secureContext: secureContextOf(running.svidOf("agents/tests")),
  });

const outbound: Listener = {
  ...{ name: "outbound leg", scheme: "http" },
  port: () => Number(new URL(running.urlOf("ledger")).port),
  connect: () => speak(connectTcp(outbound.port(), "127.0.0.1")),
};
const inbound: Listener = {
  ...{ name: "inbound leg", scheme: "https" },
  port: () => running.relay.addressesOf("ledger")?.mtls.port ?? 0,
  connect: () => speak(tls(["h2"])),
};

function goodHead(listener: Listener): Head {
  return [
    [":method", "POST"],
    [":scheme", listener.scheme],
    [":authority", `127.0.0.1:${listener.port()}`],
    [":path", "/shop.Ledger/Get"],
    ["content-type", "application/grpc"],
    ["te", "trailers"],
  ];
}

/** The good head with what `changes` names replaced or, where undefined, left out; `more` comes behind it. */
function headOf(listener: Listener, { changes = {}, more = [] }: BadHead): Head {
  const port = String(listener.port());
  const filled = ([name, value]: readonly [string, string]) => [name, value.replaceAll("PORT", port)] as const;
  const kept = goodHead(listener).flatMap(([name, value]) => {
    const changed = name in changes ? changes[name] : value;
    return changed === undefined ? [] : [[name, changed] as const];
  });
  return [...kept, ...more].map(filled);
}

interface BadHead {
  readonly changes?: Readonly<Record<string, string | undefined>>;
  readonly more?: Head;
}

interface BadCall extends BadHead {
  readonly what: string;
  readonly code: string;
}

const path = (what: string, value: string, code: string): BadCall => ({ what, changes: { ":path": value }, code });

/** What the HTTP/2 library lets through: refused by the relay, on record. */
const refusedByUs: readonly BadCall[] = [
  path("with a fragment in its path", "/shop.Ledger/Get#x", "target-fragment"),
  path("with a dot segment in its path", "/shop.Ledger/../Secret", "target-dot-segment"),
  path("with an empty segment in its path", "//shop.Ledger/Get", "target-empty-segment"),
  path("with an encoded letter in its path", "/shop.Ledger/%47et", "target-encoded-unreserved"),
  path("with a backslash in its path", "/shop.Ledger\\Get", "target-backslash"),
  path("with a query", "/shop.Ledger/Get?x=1", "target-form"),
  path("with a third segment", "/shop.Ledger/Get/x", "target-form"),
  path("with one segment", "/Get", "target-form"),
  { what: "by GET", changes: { ":method": "GET" }, code: "method-refused" },
  { what: "of the scheme file", changes: { ":scheme": "file" }, code: "http-malformed" },
  { what: "for another server", changes: { ":authority": "evil.example" }, code: "host-unknown" },
  { what: "for our server on another port", changes: { ":authority": "127.0.0.1:1" }, code: "host-unknown" },
  { what: "whose Host differs from its authority", more: [["host", "evil.example"]], code: "host-unknown" },
  {
    what: "whose authority differs from its good Host",
    changes: { ":authority": "evil.example" },
    more: [["host", "127.0.0.1:PORT"]],
    code: "host-unknown",
  },
  {
    what: "with a Host in place of an authority",
    changes: { ":authority": undefined },
    more: [["host", "127.0.0.1:PORT"]],
    code: "http-malformed",
  },
  {
    what: "that is a tunnel",
    changes: { ":method": "CONNECT", ":scheme": undefined, ":path": undefined },
    code: "upgrade-refused",
  },
  { what: "of a foreign origin", more: [["origin", "https://evil.example"]], code: "origin-foreign" },
  { what: "of another site's page", more: [["sec-fetch-site", "cross-site"]], code: "origin-foreign" },
  {
    what: "with two credentials",
    more: [
      ["authorization", "a"],
      ["authorization", "b"],
    ],
    code: "header-duplicate",
  },
  { what: "with an underscore twin", more: [["content_type", "text/x"]], code: "header-underscore-twin" },
  { what: "without a content type", changes: { "content-type": undefined }, code: "content-type" },
  { what: "of JSON", changes: { "content-type": "application/json" }, code: "content-type" },
  { what: "of gRPC-Web", changes: { "content-type": "application/grpc-web" }, code: "content-type" },
];

/** What nghttp2 refuses before anybody sees it. */
const refusedByLibrary: readonly (BadHead & {
  what: string;
  bytes?: (listener: Listener, stream: number) => Buffer;
})[] = [
  { what: "with a name in upper case", more: [["X-Thing", "y"]] },
  { what: "with Connection", more: [["connection", "close"]] },
  { what: "with Keep-Alive", more: [["keep-alive", "1"]] },
  { what: "with Proxy-Connection", more: [["proxy-connection", "keep-alive"]] },
  { what: "with Transfer-Encoding", more: [["transfer-encoding", "chunked"]] },
  { what: "with Upgrade", more: [["upgrade", "h2c"]] },
  { what: "with TE other than trailers", changes: { te: "gzip" } },
  {
    what: "with a pseudo-header field at the end",
    changes: { ":path": undefined },
    more: [[":path", "/shop.Ledger/Get"]],
  },
  {
    what: "with two paths",
    changes: { te: undefined, "content-type": undefined },
    more: [[":path", "/shop.Ledger/Secret"]],
  },
  {
    what: "with a pseudo-header field that is none",
    changes: { te: undefined, "content-type": undefined },
    more: [[":thing", "x"]],
  },
  { what: "with one of answers", changes: { te: undefined, "content-type": undefined }, more: [[":status", "200"]] },
  { what: "without a path", changes: { ":path": undefined } },
  { what: "with an empty path", changes: { ":path": "" } },
  { what: "without a method", changes: { ":method": undefined } },
  { what: "without a scheme", changes: { ":scheme": undefined } },
  {
    what: "that is an extended CONNECT",
    changes: { ":method": "CONNECT", te: undefined, "content-type": undefined },
    more: [[":protocol", "websocket"]],
  },
  { what: "of a whole server", changes: { ":path": "*" } },
  { what: "with an absolute path", changes: { ":path": "http://127.0.0.1/shop.Ledger/Get" } },
  { what: "with userinfo", changes: { ":authority": "user@127.0.0.1:PORT" } },
];

const eventually = <Value>(read: () => Value, what?: string) =>
  expect.poll(read, { timeout: 20_000, ...(what !== undefined && { message: what }) });
const decisions = () => running.record.entries.filter(({ kind }) => kind === "decision");

async function arrives(listener: Listener, connection = listener.connect()): Promise<void> {
  const arrived = service.arrived.length;
  const stream = connection.open(goodHead(listener), { ended: false });
  connection.send(frame(Frame.data, Flag.endStream, stream, Buffer.from([0, 0, 0, 0, 1, 65])));
  await eventually(() => connection.outcome(stream)).toBe("answered");
  expect(service.arrived).toHaveLength(arrived + 1);
}

describe.each([outbound, inbound])("gRPC at the $name", (listener) => {
  it.each(refusedByUs)("refuses a call $what", async (bad) => {
    const connection = listener.connect();
    await arrives(listener, connection);
    const arrived = service.arrived.length;
    const stream = connection.open(headOf(listener, bad));
    await eventually(() => connection.outcome(stream)).toBe("answered");
    expect(service.arrived).toHaveLength(arrived);
    const refusing = decisions().findLast(({ fields }) => fields.leg === listener.name.split(" ")[0]);
    expect(refusing?.fields).toMatchObject({ verdict: "DENY", rule: bad.code });
  });

  it.each(refusedByLibrary)("never sees a call $what", async (bad) => {
    const connection = listener.connect();
    await arrives(listener, connection);
    const arrived = service.arrived.length;
    const stream = connection.open(headOf(listener, bad));
    await eventually(() => connection.outcome(stream)).toMatch(/^(?:reset|goaway) 1$|^closed$/);
    expect(service.arrived).toHaveLength(arrived);
  });

  it.each([
    ["a line end in its value", "x-thing", "a\r\nauthorization: b"],
    ["a NUL in its value", "x-thing", "a\0b"],
    ["a blank in its name", "x thing", "y"],
  ])("never sees a field with %s", async (_what, name, value) => {
    const connection = listener.connect();
    const seen = (field: Head[number]) => {
      const stream = connection.open([...goodHead(listener), field, ["x-after", "1"]], { ended: false });
      connection.send(frame(Frame.data, Flag.endStream, stream, Buffer.from([0, 0, 0, 0, 1, 65])));
      return eventually(() => connection.outcome(stream)).toBe("answered");
    };
    await seen(["x-thing", "good"]);
    expect(service.arrived.at(-1)?.metadata.get("x-thing")).toEqual(["good"]);
    await seen([name, value]);
    const arrived = service.arrived.at(-1)?.metadata;
    expect([arrived?.get("x-thing"), arrived?.get("authorization"), arrived?.get("x-after")]).toEqual([[], [], ["1"]]);
  });

  it("refuses trailers that say what only a head may say", async () => {
    const connection = listener.connect();
    const call = (trailers: Head) => {
      const stream = connection.open(goodHead(listener), { ended: false });
      connection.send(frame(Frame.data, 0, stream, Buffer.from([0, 0, 0, 0, 1, 65])));
      connection.send(frame(Frame.headers, Flag.endHeaders | Flag.endStream, stream, block(trailers)));
      return stream;
    };
    const good = call([["x-checksum", "1"]]);
    await eventually(() => connection.outcome(good)).toBe("answered");
    for (const name of ["authorization", "content-length", "x-forwarded-client-cert", "agentid-ticket"]) {
      const bad = call([[name, "x"]]);
      await eventually(() => connection.outcome(bad), name).toBe("reset 1");
    }
  });

  it("ends a connection that opens calls only to reset them (CVE-2023-44487)", async () => {
    const resets = (connection: RawHttp2, count: number) => {
      for (let index = 0; index < count; index += 1) {
        const stream = connection.open(goodHead(listener), { ended: false });
        connection.send(frame(Frame.reset, 0, stream, Buffer.from([0, 0, 0, 8])));
      }
    };
    const pings = ({ received }: RawHttp2) => received.filter(({ type }) => type === Frame.ping).length;
    const patient = listener.connect();
    let reset = 0;
    // Each batch is over before the next begins: never as many at once as are refused for that alone, and more than may come in its time on a busy machine.
    const batch = 200;
    for (; reset < 20_000 && !patient.closed; reset += batch) {
      const before = pings(patient);
      resets(patient, batch);
      patient.send(frame(Frame.ping, 0, 0, Buffer.alloc(8)));
      await eventually(() => patient.closed || pings(patient) > before).toBe(true);
      if (reset === 0) await arrives(listener, patient);
    }
    expect(patient.closed).toBe(true);
    expect(reset).toBeGreaterThan(batch);
    const hasty = listener.connect();
    await arrives(listener, hasty);
    const before = decisions().length;
    resets(hasty, 5_000);
    await eventually(() => hasty.closed).toBe(true);
    expect(decisions().length - before).toBeLessThan(1_000);
    await arrives(listener);
  });

  it("ends a connection whose head never ends (CVE-2024-27316)", async () => {
    const whole = block(goodHead(listener));
    const inPieces = (connection: RawHttp2, pieces: number, ends: boolean) => {
      connection.send(frame(Frame.headers, Flag.endStream, 1, whole.subarray(0, 1)));
      for (let index = 1; index < pieces; index += 1) {
        connection.send(frame(Frame.continuation, 0, 1, whole.subarray(index, index + 1)));
      }
      connection.send(frame(Frame.continuation, ends ? Flag.endHeaders : 0, 1, whole.subarray(pieces)));
    };
    const good = listener.connect();
    inPieces(good, 4, true);
    await eventually(() => good.outcome(1)).toBe("answered");
    const bad = listener.connect();
    inPieces(bad, 40, false);
    await eventually(() => bad.closed).toBe(true);
  });

  it("ends a connection that asks for acknowledgements and does not read them", async () => {
    for (const flood of [frame(Frame.ping, 0, 0, Buffer.alloc(8)), frame(Frame.settings, 0, 0)]) {
      const connection = listener.connect();
      connection.send(flood);
      await arrives(listener, connection);
      connection.socket.pause();
      const many = Buffer.concat(Array.from({ length: 4_096 }, () => flood));
      // Closed by the relay, long before its buffers hold all of them.
      await eventually(() => {
        const { socket } = connection;
        for (let index = 0; index < 16 && socket.writableLength < 4_194_304; index += 1) connection.send(many);
        return socket.destroyed || connection.closed;
      }).toBe(true);
    }
    await arrives(listener);
  });

  it("takes 250 calls at once on a connection, and refuses the next", async () => {
    const before = service.arrived.length;
    service.handlers.Follow = (call) => void call.on("error", () => undefined);
    const connection = listener.connect();
    await eventually(() => connection.received.some(({ type }) => type === Frame.settings)).toBe(true);
    const head = headOf(listener, { changes: { ":path": "/shop.Ledger/Follow" } });
    const streams = Array.from({ length: 250 }, () => connection.open(head, { ended: false }));
    await eventually(() => service.arrived.length - before).toBe(250);
    expect(streams.map((stream) => connection.outcome(stream))).not.toContain("reset 7");
    const beyond = connection.open(head, { ended: false });
    await eventually(() => connection.outcome(beyond)).toMatch(/^(?:reset 7|goaway 1)$/);
  });

  it("bounds heads: fields, bytes, and what a table makes of few bytes", async () => {
    const connection = listener.connect();
    await arrives(listener, connection);
    const arrived = service.arrived.length;
    const many = connection.open([
      ...goodHead(listener),
      ...Array.from({ length: 200 }, (_, n) => [`x-${n}`, "1"] as const),
    ]);
    await eventually(() => connection.outcome(many)).toMatch(/^(?:reset|goaway) 11$|^closed$/);
    const second = listener.connect();
    const large = second.open([
      ...goodHead(listener),
      ...Array.from({ length: 10 }, (_, n) => [`x-${n}`, "x".repeat(1_500)] as const),
    ]);
    await eventually(() => second.outcome(large)).toBe("answered");
    const third = listener.connect();
    // 3 KiB in the table, then named by one byte each: 90 KiB of head in 3 KiB of frame.
    const bomb = Buffer.concat([
      block(goodHead(listener)),
      indexed("x-bomb", "x".repeat(3_000)),
      Buffer.alloc(60, 0x80 | 62),
    ]);
    third.send(frame(Frame.headers, Flag.endHeaders | Flag.endStream, 1, bomb));
    await eventually(() => third.outcome(1)).toBe("answered");
    expect(decisions().at(-1)?.fields).toMatchObject({ verdict: "DENY", rule: "header-count" });
    expect(service.arrived).toHaveLength(arrived);
  });
});

it("answers HTTP/1.1 on the outbound leg in words, on record", async () => {
  await arrives(outbound);
  const answer = await sendRaw(outbound.port(), `GET / HTTP/1.1\r\nHost: 127.0.0.1:${outbound.port()}\r\n\r\n`);
  expect(answer.status).toBe(505);
  expect(JSON.parse(answer.body)).toMatchObject({ code: "http-version", detail: expect.stringContaining("gRPC") });
  expect(decisions().at(-1)?.fields).toMatchObject({ verdict: "DENY", rule: "http-version" });
});

it("takes nobody on the inbound leg who does not agree on HTTP/2 in the handshake", async () => {
  await arrives(inbound);
  const other = tls(["http/1.1"]);
  other.on("error", () => undefined);
  await eventually(() => other.destroyed).toBe(true);
  const none = await exchangeRaw(tls([]), "GET / HTTP/1.1\r\nHost: ledger\r\n\r\n");
  expect(none.status).toBe(505);
});
