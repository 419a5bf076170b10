/**
 * AuthZEN over HTTP beside Cerbos, whose binary npm ships: the same client, the same question, one trivial rule on each side, connections kept alive
 * (bar: ≥ 2 ×). Each answer of ours is recorded in a file before it goes out and asked for by a known process; Cerbos, as it comes, does neither, and
 * speaks plain HTTP. Rates are for the clock; a request's processor time in the server is what other work on the machine does not stretch.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { createX509Source } from "../../src/client/spiffe/index.js";
import type { Status } from "../../src/control-api/routes.js";
import { encodePem } from "../../src/spiffe/pem.js";

const CERBOS = "@cerbos/cerbos-linux-x64@0.55.0";
const CONCURRENCY = [1, 8, 32];
const ROUNDS = 3;
const REQUESTS_A_ROUND = 1_600;
const root = join(import.meta.dirname, "..", "..");
const work = mkdtempSync(join(tmpdir(), "agentid-bench-authzen-"));

const cerbos = await startCerbos();
const agentid = await startAgentid();
const contenders: readonly Contender[] = [...(cerbos === undefined ? [] : [cerbos]), ...agentid.doors];
try {
  for (const concurrency of CONCURRENCY) {
    const best = new Map<string, Measured>();
    // In turns, so that what else runs on the machine meets all alike.
    for (let round = 0; round <= ROUNDS; round += 1) {
      for (const contender of contenders) {
        const measured = await load(contender, concurrency);
        const before = best.get(contender.name);
        // The first round warms up.
        if (round === 0) continue;
        best.set(contender.name, {
          rate: Math.max(measured.rate, before?.rate ?? 0),
          cpuMicros: Math.min(measured.cpuMicros, before?.cpuMicros ?? Number.POSITIVE_INFINITY),
        });
      }
    }
    const reference = best.get("cerbos");
    for (const [name, { rate, cpuMicros }] of best) {
      const ratios =
        reference === undefined || name === "cerbos"
          ? ""
          : `   ${(rate / reference.rate).toFixed(2)} × the rate, ${(reference.cpuMicros / cpuMicros).toFixed(2)} × the requests a second of processor time`;
      process.stdout.write(
        `authzen  ${String(concurrency).padStart(2)} connections  ${name.padEnd(14)} ${rate.toFixed(0).padStart(6)}/s  ${cpuMicros.toFixed(0).padStart(4)} µs processor time${ratios}\n`,
      );
    }
  }
} finally {
  agentid.stop();
  await cerbos?.stop();
  rmSync(work, { recursive: true, force: true });
}

interface Contender {
  readonly name: string;
  readonly pid: number;
  readonly request: Buffer;
  open(): Socket;
}

interface Measured {
  readonly rate: number;
  readonly cpuMicros: number;
}

/** Keeps `concurrency` connections busy, one request on each at a time. */
async function load(contender: Contender, concurrency: number): Promise<Measured> {
  const sockets = await Promise.all(Array.from({ length: concurrency }, () => opened(contender.open())));
  const cpu = processorTimeMicros(contender.pid);
  const begun = performance.now();
  const each = Math.ceil(REQUESTS_A_ROUND / concurrency);
  await Promise.all(sockets.map((socket) => requests(socket, contender.request, each)));
  const seconds = (performance.now() - begun) / 1_000;
  const spent = processorTimeMicros(contender.pid) - cpu;
  for (const socket of sockets) socket.destroy();
  return { rate: (each * concurrency) / seconds, cpuMicros: spent / (each * concurrency) };
}

function opened(socket: Socket): Promise<Socket> {
  const event = "getProtocol" in socket ? "secureConnect" : "connect";
  return new Promise((resolve, reject) => socket.once(event, () => resolve(socket)).once("error", reject));
}

/** A client that costs as little as one can: it looks for the end of an answer and for the decision in it. */
function requests(socket: Socket, request: Buffer, count: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let left = count;
    let received = "";
    socket.setNoDelay(true);
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("the server closed the connection")));
    socket.on("data", (chunk: Buffer) => {
      received += chunk.toString("latin1");
      const end = received.indexOf("\r\n\r\n");
      if (end === -1) return;
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(received)?.[1]);
      if (received.length < end + 4 + length) return;
      if (!received.includes('"decision":true')) {
        reject(new Error(received));
        return;
      }
      received = "";
      left -= 1;
      if (left > 0) socket.write(request);
      else resolve();
    });
    socket.write(request);
  });
}

function requestTo(host: string, body: object): Buffer {
  const text = JSON.stringify(body);
  return Buffer.from(
    `POST /access/v1/evaluation HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
  );
}

/** User and system time of all threads, in clock ticks of 10 ms. */
function processorTimeMicros(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

async function startCerbos(): Promise<(Contender & { stop(): Promise<void> }) | undefined> {
  const binary = downloadCerbos();
  if (binary === undefined) return undefined;
  const port = await freePort();
  const folder = join(work, "cerbos");
  mkdirSync(folder);
  writeFileSync(
    join(folder, "record.yaml"),
    'apiVersion: api.cerbos.dev/v1\nresourcePolicy:\n  resource: record\n  version: default\n  rules:\n    - { actions: [read], effect: EFFECT_ALLOW, roles: ["*"] }\n',
  );
  const config = join(work, "cerbos.yaml");
  writeFileSync(
    config,
    `server: { httpListenAddr: "127.0.0.1:${port}", grpcListenAddr: "127.0.0.1:${await freePort()}" }\ntelemetry: { disabled: true }\nstorage: { driver: disk, disk: { directory: ${folder}, watchForChanges: false } }\n`,
  );
  const child = spawn(binary, ["server", "--config", config, "--log-level=error"], {
    stdio: "ignore",
    env: { ...process.env, CERBOS_NO_TELEMETRY: "1" },
  });
  await answers(() => connect(port, "127.0.0.1"));
  // Cerbos wants roles of its subjects.
  const subject = { type: "user", id: "alice", properties: { "cerbos.roles": ["user"] } };
  const body = { subject, action: { name: "read" }, resource: { type: "record", id: "record-1" } };
  return {
    name: "cerbos",
    pid: child.pid ?? 0,
    stop: () => ended(child),
    request: requestTo(`127.0.0.1:${port}`, body),
    open: () => connect(port, "127.0.0.1"),
  };
}

/** From npm, once, into `.cache`, which git ignores; undefined where there is no registry, or no binary for this machine. */
function downloadCerbos(): string | undefined {
  const cache = join(root, ".cache", "cerbos");
  const binary = join(cache, "package", "cerbos-linux-x64");
  try {
    if (!existsSync(binary)) {
      mkdirSync(cache, { recursive: true });
      const packed = execFileSync("npm", ["pack", "--silent", CERBOS], { cwd: cache, encoding: "utf8" }).trim();
      execFileSync("tar", ["xzf", packed], { cwd: cache });
      chmodSync(binary, 0o755);
    }
    execFileSync(binary, ["--version"], { stdio: "ignore" });
    return binary;
  } catch (thrown) {
    process.stdout.write(`authzen  without Cerbos, no ratio: ${String(thrown).slice(0, 200)}\n`);
    return undefined;
  }
}

async function startAgentid() {
  const project = join(work, "project");
  const port = await freePort();
  mkdirSync(join(project, "policies"), { recursive: true });
  writeFileSync(
    join(project, "agentid.yaml"),
    `trustDomain: bench.local\nidentities:\n  gateway: { exe: ${process.execPath} }\nauthzen: { listen: "127.0.0.1:${port}", clients: [gateway] }\n`,
  );
  writeFileSync(
    join(project, "policies", "records.yaml"),
    "rules:\n  - { name: reads, allow: { subject: { type: user }, action: read, resource: { type: record } } }\n",
  );
  writeFileSync(
    join(project, "entities.yaml"),
    "entities:\n  - { type: user, id: alice }\n  - { type: record, id: record-1 }\n",
  );
  const command = (name: string) =>
    execFileSync(process.execPath, [join(root, "bin", "agentid.js"), name, "--json", "--project", project], {
      encoding: "utf8",
    });
  command("up");
  const { workloadApi, authzen, pid } = JSON.parse(command("status")) as Status;
  const source = await createX509Source({ socketPath: workloadApi });
  const { certificates, privateKey } = source.svid();
  const credentials = {
    cert: certificates.map((der) => encodePem("CERTIFICATE", der)).join(""),
    key: privateKey.export({ type: "pkcs8", format: "pem" }),
    ca: (source.bundleFor("bench.local") ?? []).map((der) => encodePem("CERTIFICATE", der)),
  };
  source.close();
  const subject = { type: "user", id: "alice", properties: { roles: ["user"] } };
  const body = { subject, action: { name: "read" }, resource: { type: "record", id: "record-1" } };
  const socketPath = authzen.socket.replace(/^unix:\/\//, "");
  const doors: readonly Contender[] = [
    {
      name: "agentid, TLS",
      pid,
      request: requestTo(`127.0.0.1:${port}`, body),
      open: () => connectTls({ host: "127.0.0.1", port, servername: "localhost", ...credentials }),
    },
    {
      name: "agentid, socket",
      pid,
      request: requestTo("localhost", body),
      open: () => connect(socketPath),
    },
  ];
  return { doors, stop: () => void command("down") };
}

async function answers(open: () => Socket): Promise<void> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    try {
      (await opened(open())).destroy();
      return;
    } catch (thrown) {
      if (Date.now() > deadline) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}

function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.once("exit", () => resolve());
    child.kill("SIGTERM");
  });
}
