import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { listenOnUnixSocket } from "../../src/platform/unix-socket-listener.js";
import { createManualClock } from "./manual-clock.js";
import { receive } from "./received.js";
import { identity, type RunningApi, type RunOptions, runApi, secure } from "./running-api.js";

let running: RunningApi | undefined;
afterEach(async () => {
  await running?.close();
  running = undefined;
});

async function start(options: Partial<RunOptions>): Promise<RunningApi> {
  running = await runApi({ identities: [identity("agents/billing")], ...options });
  return running;
}

async function connected(path: string): Promise<Socket> {
  const socket = connect(path);
  await once(socket, "connect");
  return socket;
}

describe("a rude client", () => {
  it("that connects and never asks is disconnected; one that has a stream is not", async () => {
    const clock = createManualClock();
    const { path, client, api } = await start({ clock, x509Seconds: 3600 });
    const stream = receive(client().fetchX509Svid({}, secure()));
    await stream.next();
    const silent = await connected(path);
    await expect.poll(() => api.open.connections).toBe(2);
    const closed = once(silent, "close");
    silent.resume();
    clock.advance(31_000);
    await closed;
    expect(api.open).toEqual({ connections: 1, streams: 1 });
    stream.cancel();
    // Real time again for what closes the server.
    const stopping = running?.close();
    running = undefined;
    await expect.poll(() => api.open.connections).toBe(0);
    await stopping;
  });

  it("that opens too many connections gets no more, and the others go on", async () => {
    const { path, client, api } = await start({ change: (d) => ({ ...d, limits: { connections: 2 } }) });
    const stream = receive(client().fetchX509Svid({}, secure()));
    await stream.next();
    const second = await connected(path);
    await expect.poll(() => api.open.connections).toBe(2);
    const third = connect(path);
    third.on("error", () => undefined);
    third.resume();
    await once(third, "close");
    expect(api.open).toEqual({ connections: 2, streams: 1 });
    second.destroy();
    stream.cancel();
  });

  it("that sends too much is refused, whatever it sends", async () => {
    const { client } = await start({ change: (d) => ({ ...d, limits: { requestBytes: 1000 } }) });
    const fetch = (audience: string) =>
      new Promise((resolve) =>
        client().fetchJwtsvid({ audience: [audience], spiffeId: "" }, secure(), (error) =>
          resolve(error?.code ?? status.OK),
        ),
      );
    expect(await fetch("a".repeat(2000))).toBe(status.RESOURCE_EXHAUSTED);
    expect(await fetch("a".repeat(500))).toBe(status.OK);
  });

  it("that opens more streams than a connection may have gets no more until one ends", async () => {
    const { client, api } = await start({ change: (d) => ({ ...d, limits: { streamsPerConnection: 2 } }) });
    const one = client();
    const [first, second] = [receive(one.fetchX509Svid({}, secure())), receive(one.fetchX509Svid({}, secure()))];
    await Promise.all([first.next(), second.next()]);
    // A client waits or fails, as it likes; another connection is not concerned.
    const third = receive(one.fetchX509Svid({}, secure()));
    const elsewhere = receive(client().fetchX509Svid({}, secure()));
    await elsewhere.next();
    expect([api.open.streams, third.waiting]).toEqual([3, 0]);
    elsewhere.cancel();
    third.cancel();
    first.cancel();
    await expect.poll(() => api.open.streams).toBe(1);
    const fourth = receive(one.fetchX509Svid({}, secure()));
    await fourth.next();
    for (const stream of [second, fourth]) stream.cancel();
  });
});

describe("the socket file", () => {
  let directory = "";
  let path = "";
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "agentid-socket-"));
    path = join(directory, "workload.sock");
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it("is open to whom the mode says", async () => {
    const server = createServer();
    await listenOnUnixSocket(server, path, 0o666);
    expect(statSync(path).mode & 0o777).toBe(0o666);
    server.close();
    await once(server, "close");
    expect(existsSync(path)).toBe(false);
    const another = createServer();
    await listenOnUnixSocket(another, path, 0o600);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    another.close();
  });

  it("replaces one that a killed process left behind", async () => {
    const program = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", program]);
    expect(statSync(path).isSocket()).toBe(true);
    const server = createServer();
    await listenOnUnixSocket(server, path, 0o666);
    (await connected(path)).destroy();
    server.close();
  });

  it("is refused where somebody listens, or where another file lies", async () => {
    const server = createServer();
    await listenOnUnixSocket(server, path, 0o666);
    await expect(listenOnUnixSocket(createServer(), path, 0o666)).rejects.toMatchObject({ code: "socket-in-use" });
    (await connected(path)).destroy();
    server.close();
    await once(server, "close");
    writeFileSync(path, "mine");
    await expect(listenOnUnixSocket(createServer(), path, 0o666)).rejects.toMatchObject({ code: "socket-path-taken" });
  });
});
