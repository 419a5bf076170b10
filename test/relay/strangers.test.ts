import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { connect as connectTls, createServer, type TLSSocket } from "node:tls";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { createStrangerRefusals, type StrangerRefusals } from "../../src/audit/stranger-refusals.js";
import { secureContextOf, secureContextOptions } from "../../src/http/mutual-tls.js";
import { boundHandshakes } from "../../src/http/pending-handshakes.js";
import { currentPlatform } from "../../src/platform/index.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { identity, type RunningRelay, runRelay, runUpstream, testAgent, type Upstream } from "./running-relay.js";

const RULES = "rules: [{ name: all, allow: { from: agents/tests, to: invoices, path: /a } }]";
const PLACES = 8;
const BOUNDS = { atOnce: 10, everyMs: 60_000, firstSumMs: 60_000, lastSumMs: 60_000, kinds: 16 };

let invoices: Upstream;
let running: RunningRelay;
let strangers: StrangerRefusals;

beforeEach(async () => {
  invoices = await runUpstream("invoices", "http", (_request, response) => response.end("ok"));
  running = await runRelay({
    services: [invoices.service],
    identities: [testAgent, identity("agents/other")],
    rules: RULES,
    change(parts) {
      strangers = createStrangerRefusals(parts.audit, createTestClock(), undefined, BOUNDS);
      return { ...parts, strangers, maxConnections: PLACES };
    },
  });
});

afterEach(async () => {
  await running.close();
  invoices.close();
});

const get = (path: string) => fetch(`${running.urlOf("invoices")}${path}`).then(({ status }) => status);
const portOfInbound = () => running.relay.addressesOf("invoices")?.mtls.port ?? 0;
const refusals = () =>
  running.record.entries.filter(({ kind, fields }) => kind === "decision" && fields.caller === "(none)");

/** A program of another user that is no identity of ours, ready when it has said so. */
async function asNobody(program: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, ["-e", program], {
    ...{ uid: 65534, gid: 65534, env: {}, cwd: "/", stdio: ["ignore", "pipe", "inherit"] },
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  await once(child.stdout as NonNullable<typeof child.stdout>, "data");
  return child;
}

describe("a flood of refused calls", () => {
  test("of processes without an identity is summed; calls of an identity beside it are each on record, allowed or denied", async () => {
    const url = running.urlOf("invoices");
    const flood = promisify(execFile)(
      "/usr/bin/curl",
      ["-s", "-w", "%{http_code} ", "-o", "/dev/null", `${url}/x?[1-40]`],
      {
        ...{ uid: 65534, gid: 65534, env: {}, cwd: "/" },
      },
    );
    const honest: number[] = [];
    for (let i = 0; i < 20; i += 1) honest.push(await get(i % 2 === 0 ? "/a" : "/b"));
    expect(honest).toEqual(Array.from({ length: 20 }, (_, index) => (index % 2 === 0 ? 200 : 403)));
    const { stdout } = await flood;
    expect(stdout).toBe("403 ".repeat(40));
    expect(refusals()).toHaveLength(10);
    strangers.close();
    const sums = running.record.entries.filter(({ kind }) => kind === "refusals.counted").map(({ fields }) => fields);
    expect(sums).toMatchObject([{ caller: "uid 65534", count: 30, rule: "no-identity", service: "invoices" }]);
    const decided = running.record.entries.filter(
      ({ kind, fields }) => kind === "decision" && fields.caller === "spiffe://shop.local/agents/tests",
    );
    expect(decided).toHaveLength(20);
  });

  test("of an identity is on record call by call, whatever they are refused for", async () => {
    const headers = { "Idempotency-Key": '"one"' };
    const sent = () => fetch(`${running.urlOf("invoices")}/a`, { method: "POST", headers });
    for (let i = 0; i < 15; i += 1) expect((await sent()).status).toBe(503);
    const refused = running.record.entries.filter(
      ({ kind, fields }) => kind === "decision" && fields.caller === "spiffe://shop.local/agents/tests",
    );
    expect(refused).toHaveLength(15);
  });

  test("over TLS without a certificate is summed as well, and an identity's denials beside it are not", async () => {
    const ask = (more: object) =>
      new Promise<number>((resolve, reject) => {
        const socket = connectTls({ host: "127.0.0.1", port: portOfInbound(), rejectUnauthorized: false, ...more });
        let text = "";
        socket.on("data", (chunk) => {
          text += chunk;
        });
        socket.once("close", () => resolve(Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0)));
        socket.once("error", reject);
        socket.write("GET /b HTTP/1.1\r\nHost: invoices\r\nConnection: close\r\n\r\n");
      });
    for (let i = 0; i < 15; i += 1) expect(await ask({})).toBe(401);
    expect(refusals()).toHaveLength(10);
    const secureContext = secureContextOf(running.svidOf("agents/other"));
    for (let i = 0; i < 15; i += 1) expect(await ask({ secureContext })).toBe(403);
    const denied = running.record.entries.filter(
      ({ kind, fields }) => kind === "decision" && fields.caller === "spiffe://shop.local/agents/other",
    );
    expect(denied).toHaveLength(15);
  });
});

/** Connections of ours that say nothing. */
async function halfOpen(port: number, count: number): Promise<readonly Socket[]> {
  const sockets = Array.from({ length: count }, () => connect({ port, host: "127.0.0.1" }));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
  });
  for (const socket of sockets) socket.on("error", () => undefined);
  await Promise.all(sockets.map((socket) => once(socket, "connect")));
  return sockets;
}

const secured = async (socket: TLSSocket) => {
  await once(socket, "secureConnect");
  return socket;
};

describe("a flood of connections to a TLS door", () => {
  test("that never come out of their handshake takes no place of a caller with a certificate", async () => {
    await halfOpen(portOfInbound(), 400);
    const secureContext = secureContextOf(running.svidOf("agents/tests"));
    const callers = await Promise.all(
      Array.from({ length: PLACES }, () =>
        secured(connectTls({ host: "127.0.0.1", port: portOfInbound(), rejectUnauthorized: false, secureContext })),
      ),
    );
    const answers = callers.map(async (socket) => {
      socket.write("GET /a HTTP/1.1\r\nHost: invoices\r\nConnection: close\r\n\r\n");
      return String((await once(socket, "data"))[0]);
    });
    for (const answer of await Promise.all(answers)) expect(answer).toMatch(/^HTTP\/1\.1 200/);
  });

  test("without a certificate takes no place of a caller with one", async () => {
    const open = () => connectTls({ host: "127.0.0.1", port: portOfInbound(), rejectUnauthorized: false });
    const flood = Array.from({ length: 120 }, open);
    onTestFinished(() => {
      for (const socket of flood) socket.destroy();
    });
    for (const socket of flood) socket.on("error", () => undefined);
    await Promise.all(flood.map((socket) => Promise.race([once(socket, "secureConnect"), once(socket, "close")])));
    expect(await Promise.all(Array.from({ length: PLACES }, () => get("/a")))).toEqual(Array(PLACES).fill(200));
  });

  test("costs the user most of whose handshakes are under way, and nobody else", async () => {
    const server = createServer(secureContextOptions(running.svidOf("services/invoices")));
    const platform = currentPlatform();
    const ends = ({ remoteAddress, remotePort, localAddress, localPort }: Socket) => ({
      client: { address: remoteAddress ?? "", port: remotePort ?? 0 },
      server: { address: localAddress ?? "", port: localPort ?? 0 },
    });
    const users: (number | undefined)[] = [];
    boundHandshakes(
      server,
      (socket) => {
        const user = platform.userOfTcpConnection(ends(socket));
        users.push(user);
        return user;
      },
      20,
    );
    const accepted: Socket[] = [];
    server.on("connection", (socket: Socket) => accepted.push(socket));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      for (const socket of accepted) socket.destroy();
      server.close();
    });
    const { port } = server.address() as { port: number };
    const ours = await halfOpen(port, 9);
    let closed = 0;
    for (const socket of ours) socket.on("close", () => (closed += 1));
    await asNobody(
      `let left = 60; const net = require("node:net");
       for (let i = 0; i < 60; i += 1) net.connect(${port}, "127.0.0.1", () => { left -= 1; if (left === 0) console.log("done"); }).on("error", () => {});
       setInterval(() => {}, 1000);`,
    );
    await expect.poll(() => accepted.length).toBe(69);
    await expect.poll(() => accepted.filter((socket) => !socket.destroyed).length).toBe(20);
    expect(closed).toBe(0);
    expect(new Set(users)).toEqual(new Set([process.getuid?.(), 65534]));
  });
});
