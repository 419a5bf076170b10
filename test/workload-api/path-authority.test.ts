import { execFile } from "node:child_process";
import { once } from "node:events";
import { chmodSync } from "node:fs";
import { createServer as createHttp2Server } from "node:http2";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { credentials, status } from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import { AttestationError } from "../../src/attestation/attestor.js";
import { SpiffeWorkloadAPIClient } from "../../src/workload-api/generated/workload.js";
import {
  ACKNOWLEDGEMENT,
  type Coding,
  encodeFrame,
  type Frame,
  fetchJwtFrames,
  flag,
  index,
  indexed,
  line,
  PREFACE,
  type RawClient,
  rawClient,
  SETTINGS,
  type,
} from "./http2-frames.js";
import { createManualClock } from "./manual-clock.js";
import { receive } from "./received.js";
import { identity, type RunningApi, type RunOptions, runApi, secure } from "./running-api.js";

const execute = promisify(execFile);
const PROTOCOL_ERROR = 1;
const PING: Frame = { type: type.ping, payload: Buffer.from("/ping/\0\0") };
/** The first entry of the dynamic table. */
const NEWEST = 62;
const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;

let running: RunningApi | undefined;
const clients: { close(): void }[] = [];
const rawClients: RawClient[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  for (const { socket } of rawClients.splice(0)) socket.destroy();
  await running?.close();
  running = undefined;
});

async function start(options: Partial<RunOptions> = {}): Promise<RunningApi> {
  running = await runApi({ identities: [identity("agents/billing")], ...options });
  return running;
}

/** A client of the library that names `authority`. */
function clientNaming(authority: string, path: string): SpiffeWorkloadAPIClient {
  const client = new SpiffeWorkloadAPIClient(`unix:${path}`, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.default_authority": authority,
  });
  clients.push(client);
  return client;
}

function fetchJwt(client: SpiffeWorkloadAPIClient): Promise<string> {
  return new Promise((resolve, reject) =>
    client.fetchJwtsvid({ audience: ["orders"], spiffeId: "" }, secure(), (error, answer) =>
      error ? reject(error) : resolve(answer?.svids[0]?.spiffeId ?? ""),
    ),
  );
}

async function raw(path: string): Promise<RawClient> {
  const client = await rawClient(path);
  rawClients.push(client);
  return client;
}

function heardOf({ heard }: RawClient, wanted: Partial<Frame>): readonly Required<Frame>[] {
  return heard.filter((one) => Object.entries(wanted).every(([key, value]) => one[key as keyof Frame] === value));
}

/** Waits until the client has heard `wanted`. */
async function hears(client: RawClient, wanted: Partial<Frame>): Promise<Required<Frame>> {
  await expect.poll(() => heardOf(client, wanted), { timeout: 5_000 }).not.toHaveLength(0);
  return heardOf(client, wanted)[0] as Required<Frame>;
}

async function answered(client: RawClient, stream: number): Promise<void> {
  const { payload } = await hears(client, { type: type.data, stream });
  expect(payload.toString("latin1")).toContain("spiffe://shop.local/agents/billing");
  expect(heardOf(client, { type: type.reset })).toEqual([]);
}

async function refused(client: RawClient, stream: number): Promise<void> {
  expect((await hears(client, { type: type.reset, stream })).payload.readUInt32BE()).toBe(PROTOCOL_ERROR);
}

function path(authority: string, coding: Coding = "plain"): Buffer {
  return line(index.authority, authority, "indexing", coding);
}

/** As grpc-java does: no request before the server's SETTINGS. */
async function connectPatiently(socketPath: string): Promise<RawClient> {
  const client = await raw(socketPath);
  client.send(PREFACE, SETTINGS, { type: type.windowUpdate, payload: Buffer.from([0, 0, 1, 0]) });
  await hears(client, { type: type.settings, flags: 0 });
  client.send(ACKNOWLEDGEMENT);
  return client;
}

describe("a client that names the socket's path as :authority", () => {
  it("is refused by Node's HTTP/2 alone: if this fails, the rewriter can go", async () => {
    const server = createHttp2Server((_request, response) => response.end());
    const { path: socketPath } = await start();
    await new Promise<void>((resolve) => server.listen(`${socketPath}.bare`, resolve));
    const client = await raw(`${socketPath}.bare`);
    client.send(PREFACE, SETTINGS, ...fetchJwtFrames(1, path("localhost")), ...fetchJwtFrames(3, path("/a")));
    await refused(client, 3);
    await hears(client, { type: type.headers, stream: 1 });
    server.close();
  });

  it("is served, by a library that uses Huffman code, as is one that names another", async () => {
    const { path: socketPath } = await start();
    // Short codes and long ones, so that slashes stand at every place within a byte.
    const long = `/${"aeiost0/Z/!/~/$/'/(/[/+/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".repeat(20)}`;
    for (const authority of ["localhost", socketPath, "/", "/////", long]) {
      const client = clientNaming(authority, socketPath);
      expect(await fetchJwt(client)).toBe("spiffe://shop.local/agents/billing");
      expect(await fetchJwt(client)).toBe("spiffe://shop.local/agents/billing");
    }
  });

  it("has streams, with every rotation, and they are released when it leaves", async () => {
    const { path: socketPath, api, keeper } = await start();
    const client = clientNaming(socketPath, socketPath);
    const stream = receive(client.fetchX509Svid({}, secure()));
    const first = await stream.next();
    for (let round = 0; round < 3; round++) {
      await keeper.rotateAll();
      expect((await stream.next()).svids[0]?.x509Svid).not.toEqual(first.svids[0]?.x509Svid);
    }
    expect(api.open).toEqual({ connections: 1, streams: 1 });
    client.close();
    stream.cancel();
    await expect.poll(() => api.open, { timeout: 5_000 }).toEqual({ connections: 0, streams: 0 });
  });

  it.each<Coding>(["plain", "huffman"])(
    "may wait for the server's SETTINGS, and index its authority (%s)",
    async (coding) => {
      const { path: socketPath } = await start();
      const client = await connectPatiently(socketPath);
      client.send(...fetchJwtFrames(1, path(socketPath, coding)));
      await answered(client, 1);
      client.send(...fetchJwtFrames(3, indexed(NEWEST)));
      await answered(client, 3);
      // Written out again, as when the table has lost it.
      client.send(...fetchJwtFrames(5, path("/another/path", coding)));
      await answered(client, 5);
    },
  );

  it("may send its request at once, and acknowledge later", async () => {
    const { path: socketPath } = await start();
    for (const authority of [socketPath, "localhost"]) {
      const atOnce = await raw(socketPath);
      atOnce.send(PREFACE, SETTINGS, ...fetchJwtFrames(1, path(authority)));
      await answered(atOnce, 1);
      expect(heardOf(atOnce, { type: type.settings, flags: 0 })).toHaveLength(1);

      const late = await raw(socketPath);
      late.send(PREFACE);
      await hears(late, { type: type.settings, flags: 0 });
      late.send(SETTINGS, ...fetchJwtFrames(1, path(authority)), ACKNOWLEDGEMENT);
      await answered(late, 1);
      late.send(ACKNOWLEDGEMENT, ...fetchJwtFrames(3, path(authority)));
      await answered(late, 3);
    }
  });

  it("may send byte by byte", async () => {
    const { path: socketPath } = await start();
    for (const authority of [socketPath, "localhost"]) {
      const client = await raw(socketPath);
      client.socket.setNoDelay(true);
      const frames = [SETTINGS, ...fetchJwtFrames(1, path(authority))].map(encodeFrame);
      for (const byte of Buffer.concat([PREFACE, ...frames])) {
        client.send(Buffer.from([byte]));
        await new Promise((resolve) => setImmediate(resolve));
      }
      await hears(client, { type: type.settings, flags: 0 });
      client.send(ACKNOWLEDGEMENT);
      await answered(client, 1);
    }
  });

  it("gets an answer to a PING before its first request, and to the request", async () => {
    const { path: socketPath } = await start();
    for (const authority of [socketPath, "localhost"]) {
      const client = await connectPatiently(socketPath);
      client.send(PING);
      const { payload } = await hears(client, { type: type.ping, flags: flag.acknowledgement });
      expect(payload.equals(PING.payload ?? Buffer.alloc(0))).toBe(true);
      client.send(...fetchJwtFrames(1, path(authority)));
      await answered(client, 1);
    }
  });

  it("is forgiven all that a path may hold, as grpc-java writes it; what can stand in no name of a file of ours is refused", async () => {
    const { path: socketPath } = await start();
    const client = await connectPatiently(socketPath);
    const paths = ['/a "#<>?\\^`{|}b', "/ä/\xff/€", "#", " "].map((one) => Buffer.from(one).toString("latin1"));
    for (const [at, authority] of paths.entries()) {
      client.send(...fetchJwtFrames(2 * at + 1, path(authority)));
      await answered(client, 2 * at + 1);
    }
    for (const [at, authority] of ["/a\x01", "/a\x00b", "/a\x7f"].entries()) {
      client.send(...fetchJwtFrames(2 * at + 101, path(authority)));
      await refused(client, 2 * at + 101);
    }
  });

  it("is forgiven in Huffman code what can be overwritten there without a look back", async () => {
    const { path: socketPath } = await start();
    const client = await connectPatiently(socketPath);
    client.send(...fetchJwtFrames(1, path('/a b/"c"', "huffman")));
    await answered(client, 1);
    client.send(...fetchJwtFrames(3, path("/a#b", "huffman")));
    await refused(client, 3);
  });

  it.runIf(isRoot)("is who the kernel says", async () => {
    const { path: socketPath, record } = await start({
      identities: [identity("agents/nobody", { uid: NOBODY }), identity("agents/root", { uid: 0 })],
    });
    chmodSync(dirname(socketPath), 0o755);
    const command = [join(import.meta.dirname, "programs/raw-call.mjs"), socketPath, socketPath];
    const ask = (uid: number) => execute(process.execPath, command, { uid, gid: uid, cwd: "/" });
    // While another is connected the same way.
    const client = clientNaming(socketPath, socketPath);
    expect(await fetchJwt(client)).toBe("spiffe://shop.local/agents/root");
    for (const uid of [NOBODY, 0]) expect(JSON.parse((await ask(uid)).stdout)).toHaveProperty("message");
    expect(await fetchJwt(client)).toBe("spiffe://shop.local/agents/root");
    const delivered = record.entries.filter(({ kind }) => kind === "svid.delivered");
    expect(delivered.map(({ fields }) => [fields.identity, fields.uid])).toEqual([
      ["agents/root", 0],
      ["agents/nobody", NOBODY],
      ["agents/root", 0],
      ["agents/root", 0],
    ]);
  });

  it("loses its connection when its process has become another", async () => {
    let changed = false;
    const { path: socketPath, api } = await start({
      change: (dependencies) => ({
        ...dependencies,
        attestor: {
          async ofUnixSocket(fd) {
            const caller = await dependencies.attestor.ofUnixSocket(fd);
            const recheck = () => {
              caller.recheck();
              if (changed) throw new AttestationError("process-changed", "it executes another program now");
            };
            return { facts: caller.facts, launch: caller.launch, recheck, close: () => caller.close() };
          },
        },
      }),
    });
    const client = clientNaming(socketPath, socketPath);
    const stream = receive(client.fetchX509Svid({}, secure()));
    await stream.next();
    expect(await fetchJwt(client)).toBe("spiffe://shop.local/agents/billing");
    expect(api.open).toEqual({ connections: 1, streams: 1 });
    changed = true;
    await expect(fetchJwt(client)).rejects.toMatchObject({ code: status.UNAUTHENTICATED });
    expect((await stream.ended).code).toBe(status.UNAVAILABLE);
    await expect.poll(() => api.open, { timeout: 5_000 }).toEqual({ connections: 0, streams: 0 });
  });
});

describe("a connection before its first request", () => {
  it.each<{ what: string; sent: readonly (Frame | Buffer)[] }>([
    { what: "nothing", sent: [] },
    { what: "half a preface", sent: [PREFACE.subarray(0, 10)] },
    { what: "SETTINGS", sent: [PREFACE, SETTINGS] },
    { what: "half a request", sent: [PREFACE, SETTINGS, { type: type.headers, stream: 1 }] },
    { what: "HTTP/1.1", sent: [Buffer.from("GET / HTTP/1.1\r\n\r\n")] },
    { what: "a PING", sent: [PREFACE, SETTINGS, PING] },
    { what: "more SETTINGS than an opening may have", sent: [PREFACE, ...Array<Frame>(8_000).fill(SETTINGS)] },
    { what: "an endless field block", sent: [PREFACE, ...endlessBlock()] },
  ])("may be left, or kept without asking: $what", async ({ sent }) => {
    const clock = createManualClock();
    const { path: socketPath, api } = await start({ clock, x509Seconds: 3600 });
    const leaving = await raw(socketPath);
    if (sent.length > 0) leaving.send(...sent);
    leaving.socket.destroy();
    const staying = await raw(socketPath);
    if (sent.length > 0) staying.send(...sent);
    clock.advance(31_000);
    await expect.poll(() => api.open.connections, { timeout: 5_000 }).toBe(0);
    expect(await fetchJwt(clientNaming("localhost", socketPath))).toBe("spiffe://shop.local/agents/billing");
    const stopping = running?.close();
    running = undefined;
    for (const client of clients.splice(0)) client.close();
    await stopping;
  });

  it("ends with the server at once, also where slashes are rewritten", async () => {
    // Nobody moves this clock: what waited for a time would wait for ever.
    const { path: socketPath, api } = await start({ clock: createManualClock(), x509Seconds: 3600 });
    const silent = await connectPatiently(socketPath);
    const stream = receive(clientNaming(socketPath, socketPath).fetchX509Svid({}, secure()));
    await stream.next();
    expect(api.open).toEqual({ connections: 2, streams: 1 });
    const closed = once(silent.socket, "close");
    const stopping = running?.close();
    running = undefined;
    expect((await stream.ended).code).toBe(status.UNAVAILABLE);
    await Promise.all([stopping, closed]);
    expect(api.open).toEqual({ connections: 0, streams: 0 });
  });

  it("and one after it may break off with answers unread", async () => {
    const { path: socketPath, api } = await start();
    for (const authority of [socketPath, "localhost"]) {
      for (let stream = 1; stream < 20; stream += 2) {
        const client = await connectPatiently(socketPath);
        client.socket.pause();
        for (let each = 1; each <= stream; each += 2) client.send(...fetchJwtFrames(each, path(authority)));
        client.socket.destroy();
      }
    }
    await expect.poll(() => api.open, { timeout: 5_000 }).toEqual({ connections: 0, streams: 0 });
    expect(await fetchJwt(clientNaming(socketPath, socketPath))).toBe("spiffe://shop.local/agents/billing");
  });
});

/** As many CONTINUATION frames as an opening may hold, and more. */
function endlessBlock(): readonly Frame[] {
  return [
    { type: type.headers, stream: 1 },
    ...Array<Frame>(100).fill({ type: type.continuation, stream: 1, payload: line("x", "y".repeat(1_000)) }),
  ];
}
