import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { connect as connectTls } from "node:tls";
import { pinned } from "./cores.js";

/** A server under load, and the one request it gets. */
export interface Contender {
  readonly name: string;
  readonly pid: number;
  readonly network: "tcp" | "unix";
  /** `127.0.0.1:3592`, or the path of a socket. */
  readonly address: string;
  /** PEM. */
  readonly tls?: { readonly certificate: string; readonly key: string; readonly authorities: string };
  readonly request: string;
}

export interface Measured {
  readonly requests: number;
  readonly seconds: number;
  /** User and system time of the server for one request. */
  readonly cpuMicros: number;
}

/** Both must be over: on a busy machine little is asked in a short time, and processor time is counted in ticks of 10 ms. */
export interface Turn {
  readonly milliseconds: number;
  readonly requests: number;
}

/** Keeps connections busy with one request at a time on each. */
export interface LoadGenerator {
  /** Its executable. */
  readonly exe: string;
  readonly name: string;
  run(contender: Contender, connections: number, turn: Turn): Promise<Measured>;
  stop(): void;
}

/** What each answer must hold. */
const MUST = '"decision":true';

/** The Go program beside this file where Go is at hand: it takes a third of the processor time that one in Node takes. Else one in this process. */
export function startLoadGenerator(cache: string): LoadGenerator {
  const program = build(cache);
  if (program === undefined) return { exe: process.execPath, name: "Node", run: loadFromHere, stop: () => undefined };
  const [command, ...args] = pinned("generator", [program]);
  const child = spawn(command ?? program, args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    exe: program,
    name: "Go",
    async run(contender, connections, turn) {
      child.stdin.write(`${JSON.stringify({ ...contender, ...turn, must: MUST, connections })}\n`);
      const { value } = await lines.next();
      if (typeof value !== "string") throw new Error(`the load generator gave up on ${contender.name}`);
      return JSON.parse(value) as Measured;
    },
    stop: () => child.stdin.end(),
  };
}

function build(cache: string): string | undefined {
  const program = join(cache, "load");
  try {
    mkdirSync(cache, { recursive: true });
    execFileSync("go", ["build", "-o", program, "."], { cwd: join(import.meta.dirname, "load"), stdio: "pipe" });
    return program;
  } catch (thrown) {
    process.stdout.write(`authzen  without Go, the load comes from this process: ${String(thrown).slice(0, 200)}\n`);
    return undefined;
  }
}

async function loadFromHere(contender: Contender, connections: number, turn: Turn): Promise<Measured> {
  const sockets = await Promise.all(Array.from({ length: connections }, () => opened(contender)));
  const cpu = processorTimeMicros(contender.pid);
  const begun = performance.now();
  const end = begun + turn.milliseconds;
  const least = turn.requests / connections;
  const counts = await Promise.all(sockets.map((socket) => ask(socket, contender.request, end, least)));
  const seconds = (performance.now() - begun) / 1_000;
  const spent = processorTimeMicros(contender.pid) - cpu;
  for (const socket of sockets) socket.destroy();
  const requests = counts.reduce((sum, count) => sum + count, 0);
  return { requests, seconds, cpuMicros: spent / requests };
}

function opened({ network, address, tls }: Contender): Promise<Socket> {
  const [host = "", port] = address.split(":");
  const to = network === "unix" ? { path: address } : { host, port: Number(port) };
  const socket =
    tls === undefined
      ? connect(to)
      : connectTls({ ...to, servername: "localhost", cert: tls.certificate, key: tls.key, ca: tls.authorities });
  const event = tls === undefined ? "connect" : "secureConnect";
  return new Promise((resolve, reject) => socket.once(event, () => resolve(socket)).once("error", reject));
}

/** Looks for the end of an answer and for what must be in it, and counts the answers until `end` and to `least`. */
function ask(socket: Socket, request: string, end: number, least: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let count = 0;
    let received = "";
    socket.setNoDelay(true);
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("the server closed the connection")));
    socket.on("data", (chunk: Buffer) => {
      received += chunk.toString("latin1");
      const head = received.indexOf("\r\n\r\n");
      if (head === -1) return;
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(received)?.[1]);
      if (received.length < head + 4 + length) return;
      if (!received.includes(MUST)) {
        reject(new Error(received));
        return;
      }
      received = "";
      count += 1;
      if (performance.now() < end || count < least) socket.write(request);
      else resolve(count);
    });
    socket.write(request);
  });
}

/** User and system time of all threads, in clock ticks of 10 ms. */
function processorTimeMicros(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

/** A POST of `body` as it goes over the wire. */
export function requestTo(host: string, body: object): string {
  const text = JSON.stringify(body);
  const head = `POST /access/v1/evaluation HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\n`;
  return `${head}Content-Length: ${text.length}\r\n\r\n${text}`;
}
