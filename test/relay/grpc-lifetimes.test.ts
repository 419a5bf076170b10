import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import {
  connect,
  constants,
  createSecureServer,
  createServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { connect as connectTls, type TLSSocket } from "node:tls";
import * as grpc from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { secureContextOf, secureContextOptions } from "../../src/http/mutual-tls.js";
import type { RunningService } from "../../src/relay/running-service.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { type GrpcService, type LedgerClient, ledgerClient, runGrpcService } from "./grpc-service.js";
import { Frame, RawHttp2 } from "./raw-http2.js";
import { identity, type RunningRelay, runRelay, shop, testAgent } from "./running-relay.js";

const RULES = "rules:\n  - { name: all, allow: { from: agents/*, to: ledger } }\n";

let service: GrpcService;
let running: RunningRelay;
let clients: LedgerClient[] = [];
const clock = createTestClock(Date.now());

beforeEach(async () => {
  service = await runGrpcService("ledger");
  running = await runRelay({
    services: [service.service],
    identities: [testAgent, identity("agents/other")],
    rules: RULES,
    clock,
  });
});
afterEach(async () => {
  for (const client of clients) client.close();
  clients = [];
  await running.close();
  service.close();
});

function local(): LedgerClient {
  const client = ledgerClient(new URL(running.urlOf("ledger")).host);
  clients.push(client);
  return client;
}

function foreign(): LedgerClient {
  const { cert, key } = secureContextOptions(running.svidOf("agents/other"));
  const verify = { checkServerIdentity: () => undefined, rejectUnauthorized: false };
  const credentials = grpc.credentials.createSsl(null, Buffer.from(key), Buffer.from(cert), verify);
  const client = ledgerClient(`localhost:${running.relay.addressesOf("ledger")?.mtls.port}`, credentials);
  clients.push(client);
  return client;
}

async function follow(client: LedgerClient): Promise<{ say(word: string): Promise<string>; ended: Promise<number> }> {
  const call = client.Follow();
  call.on("error", () => undefined);
  const ended = new Promise<number>((resolve) => {
    call.on("status", ({ code }: grpc.StatusObject) => resolve(code));
  });
  const say = async (word: string) => {
    call.write(Buffer.from(word));
    return String((await once(call, "data"))[0]);
  };
  expect(await say("open")).toBe("open");
  return { say, ended };
}

const hashes = () =>
  service.arrived.map(({ metadata }) => /Hash=(\w+)/.exec(String(metadata.get("x-forwarded-client-cert")))?.[1]);

it("a call that runs when its caller's SVID is replaced goes on, and the next one uses the new SVID", async () => {
  const client = local();
  const running1 = await follow(client);
  await running.keeper.rotateAll();
  const next = await follow(client);
  expect(await running1.say("still here")).toBe("still here");
  expect(await next.say("here too")).toBe("here too");
  const [first, second] = hashes();
  expect(first).toMatch(/^[0-9a-f]{64}$/);
  expect(second).not.toBe(first);
});

it("calls end at once with the identity of their caller, and nobody else's do", async () => {
  const [own, kept] = [await follow(local()), await follow(foreign())];
  running.configure(running.identities.filter(({ name }) => name !== testAgent.name));
  expect(await own.ended).not.toBe(0);
  expect(await kept.say("still here")).toBe("still here");
});

it("a foreign caller's connection says GOAWAY when its certificate expires: calls that run finish, others go elsewhere", async () => {
  const socket = connectTls({
    ...{ host: "127.0.0.1", port: running.relay.addressesOf("ledger")?.mtls.port ?? 0, rejectUnauthorized: false },
    ...{ secureContext: secureContextOf(running.svidOf("agents/other")), ALPNProtocols: ["h2"] },
  });
  const idle = new RawHttp2(socket);
  const call = await follow(foreign());
  await expect.poll(() => idle.received.length).toBeGreaterThan(0);
  clock.advance(601_000);
  await expect.poll(() => idle.received.some(({ type, code }) => type === Frame.goaway && code === 0)).toBe(true);
  await expect.poll(() => idle.closed).toBe(true);
  expect(await call.say("to the end")).toBe("to the end");
});

it("a relay that closes lets calls finish for a while, and takes no more", async () => {
  const client = local();
  const call = client.Follow();
  call.write(Buffer.from("open"));
  await once(call, "data");
  const closed = running.relay.close({ graceMs: 20_000 });
  call.write(Buffer.from("last"));
  expect(String((await once(call, "data"))[0])).toBe("last");
  call.end();
  const [status] = (await once(call.resume(), "status")) as [grpc.StatusObject];
  expect(status.code).toBe(0);
  await closed;
});

describe("streams of HTTP/2 without a library of gRPC", () => {
  /** A service that does with each stream what the test says. */
  async function bare(handle: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void) {
    const directory = mkdtempSync(join(tmpdir(), "agentid-h2-"));
    const path = join(directory, "s.sock");
    const server = createServer();
    const sessions = new Set<ServerHttp2Session>();
    server.on("session", (session) => sessions.add(session));
    server.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      stream.on("error", () => undefined);
      handle(stream, headers);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const relay = await runRelay({
      services: [{ ...service.service, upstream: { kind: "unix", path } }],
      rules: RULES,
    });
    const session = connect(relay.urlOf("ledger"));
    session.on("error", () => undefined);
    const call = (options = {}, more = {}) => {
      const head = { ":method": "POST", ":path": "/shop.Ledger/Get", "content-type": "application/grpc", ...more };
      const stream = session.request(head, { endStream: false, ...options });
      stream.on("error", () => undefined);
      return stream;
    };
    const close = async () => {
      session.destroy();
      for (const one of sessions) one.destroy();
      await relay.close();
      server.close();
      rmSync(directory, { recursive: true, force: true });
    };
    return { call, close, relay };
  }

  /** Writes until nothing is taken any more; gives the bytes that were. */
  function fill(stream: Duplex): Promise<number> {
    let sent = 0;
    const block = Buffer.alloc(64 * 1024);
    return new Promise((resolve) => {
      const write = () => {
        while (sent < 512 * 1024 * 1024) {
          sent += block.length;
          if (stream.write(block)) continue;
          const waiting = setTimeout(() => resolve(sent), 1_000);
          stream.once("drain", () => {
            clearTimeout(waiting);
            write();
          });
          return;
        }
        resolve(sent);
      };
      write();
    });
  }

  it("a fast service is held back while its caller does not read", async () => {
    let filled: Promise<number> | undefined;
    const { call, close } = await bare((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      filled = fill(stream);
    });
    const stream = call();
    await once(stream, "response");
    const sent = (await filled) ?? 0;
    expect(sent).toBeLessThan(16 * 1024 * 1024);
    let read = 0;
    stream.on("data", (chunk: Buffer) => {
      read += chunk.length;
    });
    await expect.poll(() => read, { timeout: 20_000 }).toBeGreaterThan(sent);
    await close();
  });

  it("a fast caller is held back while the service does not read", async () => {
    let taken: ServerHttp2Stream | undefined;
    const { call, close } = await bare((stream) => {
      taken = stream;
    });
    const sent = await fill(call());
    expect(sent).toBeLessThan(16 * 1024 * 1024);
    // On a busy machine the caller may be held back before its call has come there.
    await expect.poll(() => taken, { timeout: 20_000 }).toBeDefined();
    let read = 0;
    taken?.on("data", (chunk: Buffer) => {
      read += chunk.length;
    });
    await expect.poll(() => read, { timeout: 20_000 }).toBeGreaterThan(0);
    await close();
  });

  it("trailers go both ways, and the code of a reset", async () => {
    const seen: unknown[] = [];
    let arrived = 0;
    const { call, close } = await bare((stream) => {
      arrived += 1;
      stream.on("trailers", (trailers: IncomingHttpHeaders) => seen.push(trailers["x-checksum"]));
      stream.on("close", () => seen.push(stream.rstCode));
      stream.resume().on("end", () => {
        stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
        stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0", "x-sum": "3" }));
        stream.end("x");
      });
    });
    const stream = call({ waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-checksum": "1" }));
    stream.end("x");
    const [trailers] = (await once(stream.resume(), "trailers")) as [IncomingHttpHeaders];
    expect(trailers).toMatchObject({ "grpc-status": "0", "x-sum": "3" });
    await expect.poll(() => seen).toEqual(["1", 0]);
    const cancelled = call();
    cancelled.write("x");
    await expect.poll(() => arrived).toBe(2);
    cancelled.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    await expect.poll(() => seen.at(-1)).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    await close();
  });

  it("a service that breaks a call off passes its code, before and after its answer has begun", async () => {
    const { call, close } = await bare((stream, headers) => {
      if (headers["x-when"] !== "early") stream.respond({ ":status": 200, "content-type": "application/grpc" });
      stream.on("data", () => stream.close(constants.NGHTTP2_REFUSED_STREAM));
    });
    for (const when of ["early", "late"]) {
      const stream = call({}, { "x-when": when });
      if (when === "late") await once(stream, "response");
      stream.write("x");
      // The reset is an error too, which \`once\` would throw.
      await new Promise<void>((resolve) => stream.on("close", () => resolve()));
      expect(stream.rstCode, when).toBe(constants.NGHTTP2_REFUSED_STREAM);
    }
    await close();
  });

  it("a service whose connection breaks is UNAVAILABLE in trailers where the answer had begun", async () => {
    const { call, close } = await bare((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      stream.on("data", () => stream.session?.destroy());
    });
    const stream = call();
    await once(stream, "response");
    stream.write("x");
    const [trailers] = (await once(stream.resume(), "trailers")) as [IncomingHttpHeaders];
    expect(trailers["grpc-status"]).toBe("14");
    await close();
  });

  it("an answer whose outcome cannot be recorded has no good end", async () => {
    const { call, close, relay } = await bare((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end("x");
    });
    const statusOf = async () => {
      const stream = call();
      stream.end();
      const [trailers] = (await once(stream.resume(), "trailers")) as [IncomingHttpHeaders];
      return trailers["grpc-status"];
    };
    expect(await statusOf()).toBe("0");
    const { append } = relay.record;
    relay.record.append = (kind, fields) => {
      if (kind === "call") relay.record.writable = false;
      return append(kind, fields);
    };
    expect(await statusOf()).toBe("14");
    await close();
  });
});

describe("a service that speaks mutual TLS itself", () => {
  async function direct(serverIdentity: string, rules: string) {
    const callers: string[] = [];
    const of = (port: number): RunningService => ({
      ...{ name: "direct", id: SpiffeId.of(shop, "services/direct"), protocol: "grpc", listenPort: undefined },
      upstream: { kind: "mtls", host: "127.0.0.1", port },
    });
    const relay = await runRelay({ services: [of(9)], identities: [testAgent, identity("services/impostor")], rules });
    const server = createSecureServer({
      ...secureContextOptions(relay.svidOf(serverIdentity)),
      ...{ requestCert: true, rejectUnauthorized: false },
    });
    server.on("stream", (stream: ServerHttp2Stream) => {
      const socket = stream.session?.socket as TLSSocket | undefined;
      callers.push(socket?.getPeerCertificate().subjectaltname ?? "");
      stream.respond({ ":status": 200, "content-type": "application/grpc", "grpc-status": "5" }, { endStream: true });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    await relay.relay.update([of(typeof address === "object" && address !== null ? address.port : 0)]);
    const client = ledgerClient(new URL(relay.urlOf("direct")).host);
    const code = await new Promise<number>((resolve) => {
      client.Get(Buffer.from("x"), new grpc.Metadata(), {}, (error) => resolve(error?.code ?? 0));
    });
    client.close();
    await relay.close();
    server.close();
    return { code, callers };
  }
  const allowing = "rules:\n  - { name: all, allow: { from: agents/tests, to: direct } }\n";

  it("is called with the caller's SVID, decided by the outbound leg", async () => {
    expect(await direct("services/direct", allowing)).toEqual({
      code: grpc.status.NOT_FOUND,
      callers: ["URI:spiffe://shop.local/agents/tests"],
    });
    expect(await direct("services/direct", "rules: []\n")).toEqual({
      code: grpc.status.PERMISSION_DENIED,
      callers: [],
    });
  });

  it("is not called when somebody else of the trust domain answers", async () => {
    expect(await direct("services/impostor", allowing)).toEqual({ code: grpc.status.UNAVAILABLE, callers: [] });
  });
});

it("a caller without an identity is UNAUTHENTICATED", async () => {
  const code = (client: LedgerClient) =>
    new Promise<number>((resolve) => {
      client.Get(Buffer.from("x"), new grpc.Metadata(), {}, (error) => resolve(error?.code ?? 0));
    });
  expect(await code(local())).toBe(0);
  running.configure(running.identities.filter(({ name }) => name !== testAgent.name));
  expect(await code(local())).toBe(grpc.status.UNAUTHENTICATED);
});
