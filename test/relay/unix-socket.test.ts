import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdtempSync, realpathSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { identity, type RunningRelay, runRelay, runUpstream, testAgent, type Upstream } from "./running-relay.js";
import { decisions, echo, plain, runTcpUpstream, type TcpUpstream } from "./tcp-services.js";

const run = promisify(execFile);
const CURL = "/usr/bin/curl";
const RULES = "rules:\n  - { name: all, allow: { from: agents/*, to: [invoices, orders] } }\n";

let folder: string;
let invoices: Upstream;
let orders: TcpUpstream;
let running: RunningRelay;
const socketOf = (name: string) => join(folder, "run", `${name}.sock`);

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "agentid-listen-"));
  invoices = await runUpstream("invoices", "http", (_request, response) => response.end("arrived"));
  orders = await runTcpUpstream("orders", echo);
  running = await start();
});

afterEach(async () => {
  await running.close();
  invoices.close();
  await orders.close();
  rmSync(folder, { recursive: true, force: true });
});

function start(): Promise<RunningRelay> {
  return runRelay({
    services: [
      { ...invoices.service, listenSocket: socketOf("invoices") },
      { ...orders.service, listenSocket: socketOf("orders") },
    ],
    identities: [
      testAgent,
      ...(existsSync(CURL) ? [identity("agents/curl", { facts: { exePath: realpathSync(CURL) } })] : []),
    ],
    rules: RULES,
  });
}

function get(name: string, host: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: socketOf(name), path: "/v1/x", headers: { host } }, (response) => {
      let body = "";
      response.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      response.once("end", () => resolve({ status: response.statusCode ?? 0, body }));
    });
    asked.once("error", reject);
    asked.end();
  });
}

describe("an outbound leg on a Unix socket", () => {
  it("is open to this user alone, and its port stays", async () => {
    for (const name of ["invoices", "orders"]) {
      expect(statSync(socketOf(name)).mode & 0o777).toBe(0o600);
      expect(running.relay.addressesOf(name)?.socket).toBe(socketOf(name));
    }
    expect(statSync(join(folder, "run")).mode & 0o777).toBe(0o700);
    expect(await (await fetch(`${running.urlOf("invoices")}/v1/x`)).text()).toBe("arrived");
    await running.close();
    expect(existsSync(socketOf("orders"))).toBe(false);
  });

  it("carries bytes for the process that the kernel names", async () => {
    const { socket, text, over } = await plain(connect({ path: socketOf("orders"), allowHalfOpen: true }));
    socket.end("ping");
    expect(await over).toBe("end");
    expect(text()).toBe("ping");
    expect(decisions(running)).toEqual([
      expect.objectContaining({
        verdict: "ALLOW",
        caller: "spiffe://shop.local/agents/tests",
        evidence: "kernel",
        callerDetail: expect.stringContaining(`pid ${process.pid}`),
      }),
    ]);
  });

  it("answers HTTP for the names that a socket has, and for no other", async () => {
    expect(await get("invoices", "localhost")).toEqual({ status: 200, body: "arrived" });
    expect(await get("invoices", "invoices")).toEqual({ status: 200, body: "arrived" });
    for (const host of ["evil.example", "127.0.0.1:80", new URL(running.urlOf("invoices")).host]) {
      expect((await get("invoices", host)).status).toBe(421);
    }
    // The name of the socket is none of the port.
    const { port } = new URL(running.urlOf("invoices"));
    const asked = request({ port, host: "127.0.0.1", path: "/v1/x", headers: { host: "localhost" } });
    asked.end();
    const [response] = await once(asked, "response");
    expect(response.statusCode).toBe(421);
    response.resume();
    expect(invoices.arrived).toHaveLength(2);
  });

  it.skipIf(!existsSync(CURL))(
    "is found by curl, which has an identity, and not by python, which has none",
    async () => {
      const { stdout } = await run(CURL, ["-sS", "--unix-socket", socketOf("invoices"), "http://localhost/v1/x"]);
      expect(stdout).toBe("arrived");
      expect(decisions(running).at(-1)).toMatchObject({ caller: "spiffe://shop.local/agents/curl" });
      const script = `import socket
s = socket.socket(socket.AF_UNIX)
s.connect("${socketOf("invoices")}")
s.sendall(b"GET /v1/x HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
print(s.recv(12).decode())`;
      expect((await run("python3", ["-c", script])).stdout).toBe("HTTP/1.1 403\n");
      expect(decisions(running).at(-1)).toMatchObject({ verdict: "DENY", rule: "no-identity" });
    },
  );

  it("moves with its entry", async () => {
    const moved = join(folder, "other.sock");
    await running.relay.update([{ ...orders.service, listenSocket: moved }]);
    expect(existsSync(socketOf("orders"))).toBe(false);
    const { socket, text, over } = await plain(connect({ path: moved, allowHalfOpen: true }));
    socket.end("ping");
    await over;
    expect(text()).toBe("ping");
    await running.relay.update([orders.service]);
    expect(existsSync(moved)).toBe(false);
  });
});

describe("what is in the way of a socket", () => {
  beforeEach(async () => running.close());

  it("is replaced where a killed daemon left it", async () => {
    const script = `require("net").createServer().listen(${JSON.stringify(socketOf("orders"))}, () => console.log("up"))`;
    const killed = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    await once(killed.stdout, "data");
    killed.kill("SIGKILL");
    await once(killed, "exit");
    expect(existsSync(socketOf("orders"))).toBe(true);
    running = await start();
    const { socket, text, over } = await plain(connect({ path: socketOf("orders"), allowHalfOpen: true }));
    socket.end("ping");
    await over;
    expect(text()).toBe("ping");
  });

  it("is an error where somebody answers there", async () => {
    const other = createServer().listen(socketOf("orders"));
    await once(other, "listening");
    await expect(start()).rejects.toMatchObject({ code: "socket-in-use" });
    other.close();
    await once(other, "close");
    running = await start();
  });

  it("is an error where it is a file", async () => {
    writeFileSync(socketOf("orders"), "mine");
    await expect(start()).rejects.toMatchObject({ code: "socket-path-taken" });
    rmSync(socketOf("orders"));
    running = await start();
  });

  it.skipIf(process.getuid?.() !== 0)("is an error where it is another user's, dead as it is", async () => {
    const script = `require("net").createServer().listen(${JSON.stringify(socketOf("orders"))}, () => console.log("up"))`;
    const killed = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    await once(killed.stdout, "data");
    killed.kill("SIGKILL");
    await once(killed, "exit");
    chownSync(socketOf("orders"), 65534, 65534);
    await expect(start()).rejects.toMatchObject({
      code: "socket-path-taken",
      message: expect.stringContaining("of user 65534"),
    });
    chownSync(socketOf("orders"), 0, 0);
    running = await start();
  });
});
