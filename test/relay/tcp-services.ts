import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import type { RunningService } from "../../src/relay/running-service.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { type RunningRelay, shop } from "./running-relay.js";

/** A real server of bytes, and every connection that has reached it. */
export interface TcpUpstream {
  readonly service: RunningService;
  readonly arrived: Socket[];
  /** First bytes of each connection. */
  readonly begun: Buffer[];
  open(): number;
  close(): Promise<void>;
}

/** Listens on a Unix socket, or on a port where `serve` must be able to tell a reset. */
export async function runTcpUpstream(
  name: string,
  serve: (socket: Socket) => void,
  how: { kind?: "unix" | "tcp"; more?: Partial<RunningService> } = {},
): Promise<TcpUpstream> {
  const directory = mkdtempSync(join(tmpdir(), "agentid-tcp-"));
  const path = join(directory, "s.sock");
  const arrived: Socket[] = [];
  const begun: Buffer[] = [];
  const live = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    arrived.push(socket);
    live.add(socket);
    socket.once("close", () => live.delete(socket));
    socket.on("error", () => socket.destroy());
    socket.once("data", (chunk: Buffer) => begun.push(chunk));
    serve(socket);
  });
  if (how.kind === "tcp") server.listen(0, "127.0.0.1");
  else server.listen(path);
  await once(server, "listening");
  const upstream =
    how.kind === "tcp"
      ? ({ kind: "tcp", host: "127.0.0.1", port: (server.address() as AddressInfo).port } as const)
      : ({ kind: "unix", path } as const);
  const id = SpiffeId.of(shop, `services/${name}`);
  return {
    service: { name, id, protocol: "tcp", listenPort: undefined, upstream, ...how.more },
    arrived,
    begun,
    open: () => live.size,
    async close() {
      for (const socket of live) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export function echo(socket: Socket): void {
  socket.pipe(socket);
}

/** A plain connection to a service's outbound leg, with all that comes back. */
export interface Plain {
  readonly socket: Socket;
  readonly received: Buffer[];
  text(): string;
  /** How it ended: `end` in order, or the code of the error. */
  readonly over: Promise<string>;
}

export async function plainTo(running: RunningRelay, name: string): Promise<Plain> {
  return plain(connect({ port: portOf(running, name), host: "127.0.0.1", allowHalfOpen: true }));
}

export async function plain(socket: Socket): Promise<Plain> {
  const received: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => received.push(chunk));
  const over = new Promise<string>((resolve) => {
    let failed: string | undefined;
    socket.on("error", (error: NodeJS.ErrnoException) => {
      failed ??= error.code ?? error.message;
    });
    socket.once("close", () => resolve(failed ?? "end"));
  });
  await once(socket, "connect");
  return { socket, received, text: () => Buffer.concat(received).toString(), over };
}

export function portOf(running: RunningRelay, name: string): number {
  return Number(new URL(running.urlOf(name)).port);
}

/** Decisions about connections as the record has them, oldest first. */
export function decisions(running: RunningRelay): readonly Record<string, unknown>[] {
  return running.record.entries.filter(({ kind }) => kind === "decision").map(({ fields }) => fields);
}

/** Ends of connections as the record has them. */
export function ends(running: RunningRelay): readonly Record<string, unknown>[] {
  return running.record.entries.filter(({ kind }) => kind === "call").map(({ fields }) => fields);
}

/** As `expect.poll`, with patience for a machine that has other things to do: kernels are asked, processes searched. */
export function eventually<Value>(
  value: () => Value | Promise<Value>,
  options: { interval?: number } = {},
): ReturnType<typeof expect.poll> {
  return expect.poll(value, { timeout: 25_000, ...options });
}
