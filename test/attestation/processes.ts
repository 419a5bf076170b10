import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** Real processes for tests: each is told what to do by lines on its standard input and answers by lines. */

const cleanups: (() => void | Promise<void>)[] = [];

/** Runs `cleanup` when the test is over; see `cleanUp`. */
export function atEnd(cleanup: () => void | Promise<void>): void {
  cleanups.push(cleanup);
}

/** For `afterEach`: nothing that a test started stays behind. */
export async function cleanUp(): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "agentid-test-"));
  atEnd(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Told {
  readonly pid: number;
  readonly process: ChildProcess;
  tell(line: string): void;
  /** The next line that the process prints. */
  line(): Promise<string>;
  exited(): Promise<void>;
}

export function start(command: string, args: readonly string[], options: SpawnOptions = {}): Told {
  const child = spawn(command, args, { ...options, stdio: ["pipe", "pipe", "inherit"] });
  if (child.pid === undefined || child.stdout === null) throw new Error(`${command} did not start`);
  const exit = once(child, "exit");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  atEnd(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await exit;
    }
  });
  return {
    pid: child.pid,
    process: child,
    tell: (line) => void child.stdin?.write(`${line}\n`),
    async line() {
      const next = await lines.next();
      if (next.done) throw new Error(`${command} printed nothing more`);
      return next.value;
    },
    async exited() {
      await exit;
    },
  };
}

/** Polls where the kernel gives no event; fails after `deadlineMs`. */
export async function until(holds: () => boolean | Promise<boolean>, what: string, deadlineMs = 10_000): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A server on a Unix socket or on loopback TCP that hands out its accepted connections in order. */
export interface Accepting {
  readonly server: Server;
  readonly address: string;
  readonly port: number;
  accepted(): Promise<Socket>;
}

export async function listen(where: { path: string } | { host: string; port: 0 }): Promise<Accepting> {
  const waiting: ((socket: Socket) => void)[] = [];
  const ready: Socket[] = [];
  const open = new Set<Socket>();
  // Paused, so that Node does not close the descriptor by itself when the peer goes.
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    open.add(socket);
    socket.on("error", () => socket.destroy());
    const next = waiting.shift();
    if (next === undefined) ready.push(socket);
    else next(socket);
  });
  server.listen(where);
  await once(server, "listening");
  atEnd(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  const address = server.address();
  return {
    server,
    address: typeof address === "string" ? address : "",
    port: typeof address === "object" && address !== null ? address.port : 0,
    accepted: () => {
      const socket = ready.shift();
      return socket === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(socket);
    },
  };
}

/** The descriptor of an accepted socket, as the daemon takes it. */
export function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { _handle: { fd: number } };
  return handle.fd;
}

/** A Node program that connects to argv[1] (path or port) and then obeys: `exec FILE ARG…`, `fork`, `exit`. */
export const CONNECTOR = `
  const net = require("node:net");
  const to = process.argv[1];
  const socket = net.connect(/^\\d+$/.test(to) ? { host: process.argv[2] ?? "127.0.0.1", port: Number(to) } : { path: to });
  socket.on("error", () => process.exit(9));
  socket.on("connect", () => console.log("connected"));
  require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
    const [word, ...rest] = line.split(" ");
    if (word === "exec") process.execve(rest[0], rest, process.env);
    if (word === "setuid") { process.setgroups([]); process.setgid(65534); process.setuid(65534); console.log("done"); }
    if (word === "share") require("node:child_process").spawn("cat", { stdio: [socket._handle, "ignore", "ignore"] }).on("spawn", () => console.log("shared"));
    if (word === "exit") process.exit(0);
  });
`;

/** A Python that every user may run; what it does stands in programs/told.py. */
export const PYTHON = "/usr/bin/python3";
export const TOLD = join(import.meta.dirname, "programs", "told.py");

/** Starts programs/told.py, as user and group `uid` if one is given. */
export function startTold(uid?: number): Told & { does(line: string): Promise<string> } {
  return obeying(start(PYTHON, [TOLD], uid === undefined ? {} : { uid, gid: uid, cwd: "/" }));
}

/** With `does`: tells a line and waits for the answer. */
export function obeying(told: Told): Told & { does(line: string): Promise<string> } {
  return {
    ...told,
    does(line) {
      told.tell(line);
      return told.line();
    },
  };
}

/** The tests run as root and drop to other users; where they cannot, that is said aloud, once a file. */
export const isRoot = process.getuid?.() === 0;
if (process.platform === "linux" && !isRoot) {
  process.stderr.write("not root: every test that needs a second user or a namespace of root's is SKIPPED\n");
}
export const NOBODY = 65_534;
export const SOMEBODY = 61_001;
