import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RunningService } from "../../src/relay/running-service.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { shop } from "../relay/running-relay.js";
import { readStrictly, type StrictRequest } from "./strict-http.js";

/** A service that keeps every byte it gets, reads them strictly, and answers each request. */
export async function runListeningService(name: string) {
  const directory = mkdtempSync(join(tmpdir(), "agentid-fuzz-"));
  const path = join(directory, "s.sock");
  const arrived: StrictRequest[] = [];
  const faults: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
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
          const body = request.method === "HEAD" ? "" : "arrived";
          socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n${body}`);
        }
      } catch (thrown) {
        faults.push((thrown as Error).message);
        socket.destroy();
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const service: RunningService = {
    name,
    id: SpiffeId.of(shop, `services/${name}`),
    protocol: "http",
    listenPort: undefined,
    upstream: { kind: "unix", path },
  };
  return {
    service,
    arrived,
    /** What no strict reader can read. */
    faults,
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
