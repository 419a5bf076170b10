import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type WebSocket, WebSocketServer } from "ws";
import type { RunningService } from "../../src/relay/running-service.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { shop } from "./running-relay.js";

/** A service with a WebSocket server that nobody here wrote, on a Unix socket; and everything that arrived there, requests and switches alike. */
export interface WebSocketService {
  readonly service: RunningService;
  readonly server: Server;
  readonly arrived: IncomingMessage[];
  /** Every byte that came on any connection. */
  received(): string;
  opened: (socket: WebSocket, request: IncomingMessage) => void;
  /** Answers what is no WebSocket. */
  answer: (response: ServerResponse) => void;
  /** Takes the place of the WebSocket server. */
  switching: ((request: IncomingMessage, socket: Socket) => void) | undefined;
  close(): void;
}

export async function runWebSocketService(name: string): Promise<WebSocketService> {
  const directory = mkdtempSync(join(tmpdir(), "agentid-ws-"));
  const path = join(directory, "s.sock");
  const chunks: string[] = [];
  const sockets = new Set<Socket>();
  const speaker = new WebSocketServer({ noServer: true, perMessageDeflate: true, maxPayload: 64 * 1024 * 1024 });
  const server = createServer((request, response) => {
    running.arrived.push(request);
    request.resume().on("end", () => running.answer(response));
  });
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    running.arrived.push(request);
    chunks.push(head.toString("latin1"));
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => chunks.push(chunk.toString("latin1")));
    if (running.switching !== undefined) running.switching(request, socket);
    else speaker.handleUpgrade(request, socket, head, (opened) => running.opened(opened, request));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const running: WebSocketService = {
    service: {
      ...{ name, id: SpiffeId.of(shop, `services/${name}`), protocol: "http", listenPort: undefined },
      upstream: { kind: "unix", path },
    },
    server,
    arrived: [],
    received: () => chunks.join(""),
    // An echo.
    opened: (socket) => socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary })),
    answer: (response) => void response.end("arrived"),
    switching: undefined,
    close() {
      for (const socket of sockets) socket.destroy();
      speaker.close();
      server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return running;
}
