import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { Server as GrpcServer } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createRequestFrames } from "../../src/workload-api/http2/request-frames.js";
import { rewrittenConnection } from "../../src/workload-api/http2/rewritten-connection.js";
import { createGrpcConnections } from "../../src/workload-api/http2/server-side.js";
import { encodeFrame, type Frame, fetchJwtFrames, index, line, PREFACE, SETTINGS } from "./http2-frames.js";

let directory = "";
let server: Server;
let client: Socket;
let accepted: Socket;
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "agentid-rewritten-"));
  server = createServer();
  server.listen(join(directory, "socket"));
  await once(server, "listening");
  const connected = once(server, "connection");
  client = connect(join(directory, "socket"));
  [accepted] = (await connected) as [Socket];
});
afterEach(() => {
  client.destroy();
  accepted.destroy();
  server.close();
  rmSync(directory, { recursive: true, force: true });
});

function bytes(...frames: readonly (Frame | Buffer)[]): Buffer {
  return Buffer.concat(frames.map((one) => (Buffer.isBuffer(one) ? one : encodeFrame(one))));
}

/** All that comes, as text, in order. */
function textOf(stream: Socket | Duplex): { readonly all: string } {
  let all = "";
  stream.on("data", (data: Buffer) => {
    all += data.toString("latin1");
  });
  return {
    get all() {
      return all;
    },
  };
}

describe("a rewritten connection", () => {
  it("carries both directions, more than a buffer holds, and the end", async () => {
    const connection = rewrittenConnection(accepted, createRequestFrames(), Buffer.from("opening "));
    const [there, back] = [textOf(connection), textOf(client)];
    const ended = once(connection, "end");
    const many = "0123456789".repeat(100_000);
    client.write(many);
    await expect.poll(() => there.all === `opening ${many}`, { timeout: 5_000 }).toBe(true);
    connection.cork();
    for (const part of ["a", many, "b"]) connection.write(part);
    connection.uncork();
    connection.write("c");
    await expect.poll(() => back.all === `a${many}bc`, { timeout: 5_000 }).toBe(true);
    client.end();
    await ended;
  });

  it("closes its socket when it is closed, and is closed with it", async () => {
    const connection = rewrittenConnection(accepted, createRequestFrames(), Buffer.alloc(0));
    const closed = once(client.resume(), "close");
    connection.destroy();
    await closed;

    const connected = once(server, "connection");
    const another = connect(join(directory, "socket"));
    const [socket] = (await connected) as [Socket];
    const second = rewrittenConnection(socket, createRequestFrames(), Buffer.alloc(0));
    const secondClosed = once(second, "close");
    socket.destroy();
    await secondClosed;
    another.destroy();
  });

  it("fails as its socket does", async () => {
    const connection = rewrittenConnection(accepted, createRequestFrames(), Buffer.alloc(0));
    const failed = once(connection, "error");
    accepted.destroy(new Error("broken pipe"));
    expect(await failed).toEqual([new Error("broken pipe")]);
    expect(connection.destroyed).toBe(true);
  });

  it("leaves nothing in the gRPC server when it is over", async () => {
    const grpc = new GrpcServer();
    const injectors = { made: 0, destroyed: 0 };
    const make = grpc.createConnectionInjector.bind(grpc);
    grpc.createConnectionInjector = (credentials) => {
      injectors.made++;
      const injector = make(credentials);
      const destroy = injector.destroy;
      return Object.assign(injector, {
        destroy() {
          injectors.destroyed++;
          destroy();
        },
      });
    };
    const connections = createGrpcConnections(grpc, 128);
    connections.serve(accepted);
    client.write(bytes(PREFACE, SETTINGS, ...fetchJwtFrames(1, line(index.authority, "/a"))));
    await once(client, "data");
    expect(injectors).toEqual({ made: 2, destroyed: 0 });
    client.destroy();
    await expect.poll(() => injectors, { timeout: 5_000 }).toEqual({ made: 2, destroyed: 1 });
    connections.destroy();
    grpc.forceShutdown();
  });
});
