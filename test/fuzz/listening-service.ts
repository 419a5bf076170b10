import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RunningService } from "../../src/relay/running-service.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { shop } from "../relay/running-relay.js";
import { readStrictly, type StrictRequest } from "./strict-http.js";

const ARRIVED = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\narrived";

export type ListeningService = Awaited<ReturnType<typeof runListeningService>>;

/**
 * A service that keeps every byte it gets, reads them strictly, and answers each request: with `answer.bytes`, whatever they are, or what `answer.to` says.
 * On a Unix socket, or on a port of 127.0.0.1.
 */
export async function runListeningService(
  name: string,
  protocol: RunningService["protocol"] = "http",
  on: "socket" | "port" = "socket",
) {
  const directory = mkdtempSync(join(tmpdir(), "agentid-fuzz-"));
  const path = join(directory, "s.sock");
  const arrived: StrictRequest[] = [];
  const faults: string[] = [];
  const answer: { bytes: string; to: ((request: StrictRequest) => string) | undefined } = {
    bytes: ARRIVED,
    to: undefined,
  };
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    connections += 1;
    let unread = Buffer.alloc(0);
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
    socket.on("data", (chunk: Buffer) => {
      unread = Buffer.concat([unread, chunk]);
      try {
        const { requests, rest } = readStrictly(unread);
        unread = Buffer.from(rest, "latin1");
        for (const request of requests) {
          arrived.push(request);
          const bytes = answer.to?.(request) ?? answer.bytes;
          socket.write(
            Buffer.from(request.method === "HEAD" ? bytes.replace(/(?<=\r\n\r\n).*/s, "") : bytes, "latin1"),
          );
        }
      } catch (thrown) {
        faults.push((thrown as Error).message);
        socket.destroy();
      }
    });
  });
  await new Promise<void>((resolve) => {
    if (on === "socket") server.listen(path, resolve);
    else server.listen(0, "127.0.0.1", resolve);
  });
  const service: RunningService = {
    name,
    id: SpiffeId.of(shop, `${protocol === "mcp" ? "mcp" : "services"}/${name}`),
    protocol,
    listenPort: undefined,
    upstream:
      on === "socket"
        ? { kind: "unix", path }
        : { kind: "tcp", host: "127.0.0.1", port: (server.address() as AddressInfo).port },
  };
  return {
    service,
    arrived,
    answer,
    /** How many connections have been made to it. */
    get connections() {
      return connections;
    },
    /** What no strict reader can read. */
    faults,
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
