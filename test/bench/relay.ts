/**
 * What the relay adds to a call, side by side in one run: a direct call, a bare Node mutual-TLS proxy on undici, nginx with the same mutual TLS
 * (neither has a policy or a record), the inbound leg (mutual TLS, policy of 10 rules, record on disk), and both legs. Bars: inbound p50 ≤ 0.25 ms and
 * p99 ≤ 2 ms added at 1,000 requests/s on 16 connections; highest rate ≥ 0.8 × the bare proxy and ≥ 0.4 × nginx; 1,000 new connections/s; memory flat
 * under a gigabyte each way; 1,000 idle connections in ≤ 1.3 × the memory of bare `node:https`.
 *
 * Each contender is a process of its own on one core, the generator and the service on the other. They take short turns, forwards and backwards, and what
 * is compared is of the same round; processor time per call says what a wall clock on a busy machine cannot.
 */
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildLoad, PROXY_CORE, startLoad, type Target } from "./relay/load.js";
import { startNginx } from "./relay/nginx.js";
import { type BenchAddresses, runPart } from "./relay/parts.js";
import { childrenOf, processorMicros, residentMegabytes } from "./relay/process-usage.js";

const ROUNDS = Number(process.env.AGENTID_BENCH_ROUNDS ?? 16);
/** Short: what others do to the machine is then the same for all in a round, more or less. */
const SECONDS = 0.5;
const RATE_SECONDS = 1;
const WARM_SECONDS = 2;
const CONNECTIONS = 16;
const RATE = 1_000;
const STREAMED_BYTES = 2 ** 30;
const IDLE = 1_000;
const PART = process.env.AGENTID_BENCH_PART;
/** A folder for the CPU profiles of the Node parts. */
const PROFILES = process.env.AGENTID_BENCH_PROFILES;

interface Contender {
  readonly name: string;
  readonly target: Target;
  /** The processes that do its work; none for a direct call. */
  readonly pids: readonly number[];
  /** Has garbage collected. */
  readonly collect?: () => Promise<void>;
}

interface Turn {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  /** Requests a second, as many as go. */
  readonly highest: number;
  /** Microseconds of processor time for each of them. */
  readonly processor: number;
  /** Connections a second, each with a handshake and one call, and the microseconds of processor time for each. */
  readonly connects: number;
  readonly processorOfConnect: number;
}

const say = (text: string) => process.stdout.write(`${text}\n`);

if (PART === undefined) await compare();
else await runPart(PART);

async function compare(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "agentid-bench-"));
  const load = buildLoad(directory);
  if (load === undefined) {
    say("SKIPPED: there is no Go here to build the generator with");
    return;
  }
  const ends: (() => void)[] = [() => rmSync(directory, { recursive: true, force: true })];
  try {
    const service = await startLoad<{ port: number }>(load, "upstream", undefined);
    ends.push(() => service.child.stdin?.end());
    const node = async <Answer>(part: string, message: object) => {
      const child = startPart(part, message);
      ends.push(() => child.disconnect());
      const answer = await answerOf<Answer>(child, part);
      const collect = async () => {
        child.send("collect");
        await answerOf(child, part);
      };
      return { ...answer, pid: child.pid ?? 0, collect };
    };
    const upstream = service.answer;
    const relay = await node<BenchAddresses>("relay", { ...upstream, caller: load });
    const bare = await node<{ port: number }>("bare-proxy", { ...relay, ...upstream });
    const server = await node<{ port: number }>("bare-server", { ...relay, ...upstream });
    const files = writeFiles(directory, relay);
    const nginx = await startNginx(directory, files.server, upstream.port);
    ends.push(() => nginx?.child.kill());
    if (nginx === undefined) say("SKIPPED: nginx is not installed, so nothing is compared with it");

    const tls = (port: number): Target => ({ address: `127.0.0.1:${port}`, tls: files.client });
    const plain = (port: number): Target => ({ address: `127.0.0.1:${port}` });
    const direct: Contender = { name: "direct, no proxy", target: plain(upstream.port), pids: [] };
    const bareProxy: Contender = { name: "bare undici mTLS proxy", target: tls(bare.port), pids: [bare.pid] };
    const inbound: Contender = {
      name: "relay, inbound leg",
      target: tls(relay.inbound),
      pids: [relay.pid],
      collect: relay.collect,
    };
    const both: Contender = { name: "relay, both legs", target: plain(relay.outbound), pids: [relay.pid] };
    const others: readonly Contender[] =
      nginx === undefined
        ? []
        : [{ name: "nginx, same mTLS", target: tls(nginx.port), pids: childrenOf(nginx.child.pid ?? 0) }];
    const contenders = [direct, bareProxy, ...others, inbound, both];

    // First, while nothing else has grown.
    const { pid, port, collect } = server;
    await holdIdle(load, inbound, { name: "bare node:https", target: tls(port), pids: [pid], collect });
    await compareCalls(load, contenders, { direct, bareProxy, nginx: others[0] });
    for (const contender of [inbound, both]) await streamThrough(load, contender);
  } finally {
    // The parts end by themselves then, and leave no file behind.
    for (const end of ends.reverse()) end();
  }
}

async function compareCalls(
  load: string,
  contenders: readonly Contender[],
  reference: { direct: Contender; bareProxy: Contender; nginx: Contender | undefined },
): Promise<void> {
  for (const { target } of contenders) {
    await startLoad(load, "highest", target, { seconds: WARM_SECONDS, connections: CONNECTIONS });
  }
  const rounds: Map<Contender, Turn>[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const inOrder = round % 2 === 0 ? contenders : contenders.toReversed();
    const turns = new Map<Contender, Partial<Turn>>();
    for (const measure of [atRate, atHighest, connecting]) {
      for (const contender of inOrder) {
        turns.set(contender, { ...turns.get(contender), ...(await measure(load, contender)) });
      }
    }
    rounds.push(turns as Map<Contender, Turn>);
  }
  const over = (contender: Contender, value: (turn: Turn) => number) =>
    median(rounds.map((turns) => value(turns.get(contender) as Turn)));
  const ratio = (contender: Contender, to: Contender | undefined, value: (turn: Turn) => number) =>
    to === undefined
      ? "-"
      : median(rounds.map((turns) => value(turns.get(contender) as Turn) / value(turns.get(to) as Turn))).toFixed(2);
  const added = (contender: Contender, value: (turn: Turn) => number) =>
    median(
      rounds.map((turns) => value(turns.get(contender) as Turn) - value(turns.get(reference.direct) as Turn)),
    ).toFixed(3);
  say(
    `medians of ${ROUNDS} rounds, turns of ${SECONDS} s; added: to a direct call of the same round at ${RATE}/s; × of rates of the same round`,
  );
  const columns = [
    "added p50",
    "p90",
    "p99 ms",
    "max/s",
    "× bare",
    "× nginx",
    "µs cpu",
    "× bare",
    "× nginx",
    "new/s",
    "µs cpu",
  ];
  say(`${"".padEnd(24)}${columns.map((text) => text.padStart(10)).join("")}`);
  for (const contender of contenders) {
    const { bareProxy, nginx } = reference;
    const proxies = contender.pids.length > 0;
    const cells = [
      ...[added(contender, ({ p50 }) => p50), added(contender, ({ p90 }) => p90), added(contender, ({ p99 }) => p99)],
      over(contender, ({ highest }) => highest).toFixed(0),
      ratio(contender, bareProxy, ({ highest }) => highest),
      ratio(contender, nginx, ({ highest }) => highest),
      proxies ? over(contender, ({ processor }) => processor).toFixed(0) : "-",
      proxies ? ratio(contender, bareProxy, ({ processor }) => 1 / processor) : "-",
      proxies ? ratio(contender, nginx, ({ processor }) => 1 / processor) : "-",
      over(contender, ({ connects }) => connects).toFixed(0),
      proxies ? over(contender, ({ processorOfConnect }) => processorOfConnect).toFixed(0) : "-",
    ];
    say(`${contender.name.padEnd(24)}${cells.map((text) => text.padStart(10)).join("")}`);
  }
}

async function atRate(load: string, { target }: Contender): Promise<Partial<Turn>> {
  const options = { seconds: RATE_SECONDS, connections: CONNECTIONS, rate: RATE };
  return (await startLoad<Pick<Turn, "p50" | "p90" | "p99">>(load, "rate", target, options)).answer;
}

async function atHighest(load: string, contender: Contender): Promise<Partial<Turn>> {
  const { rate, micros } = await busily(load, "highest", contender);
  return { highest: rate, processor: micros };
}

async function connecting(load: string, contender: Contender): Promise<Partial<Turn>> {
  const { rate, micros } = await busily(load, "connect", contender);
  return { connects: rate, processorOfConnect: micros };
}

/** Rate a second, and microseconds of processor time for each. */
async function busily(load: string, mode: "highest" | "connect", { target, pids }: Contender) {
  const before = processorMicros(pids);
  const options = { seconds: SECONDS, connections: CONNECTIONS };
  const { answer } = await startLoad<{ calls: number; rate: number }>(load, mode, target, options);
  return { rate: answer.rate, micros: (processorMicros(pids) - before) / answer.calls };
}

async function streamThrough(load: string, { name, target, pids: [pid = 0] }: Contender): Promise<void> {
  for (const mode of ["download", "upload"]) {
    const before = residentMegabytes(pid);
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, residentMegabytes(pid));
    }, 50);
    const { answer } = await startLoad<{ seconds: number }>(load, mode, target, { bytes: STREAMED_BYTES });
    clearInterval(watch);
    const rate = STREAMED_BYTES / 2 ** 20 / answer.seconds;
    say(
      `${name}, 1 GB ${mode}: ${rate.toFixed(0)} MB/s, memory ${before.toFixed(0)} MB before, ${most.toFixed(0)} at most`,
    );
  }
}

async function holdIdle(load: string, ...contenders: readonly [Contender, Contender]): Promise<void> {
  const grown: number[] = [];
  for (const { name, target, pids, collect } of contenders) {
    const [pid = 0] = pids;
    // One connection has loaded what the first one loads.
    await startLoad(load, "highest", target, { seconds: WARM_SECONDS, connections: 1 });
    await collect?.();
    const before = residentMegabytes(pid);
    const { child } = await startLoad(load, "idle", target, { connections: IDLE });
    await collect?.();
    const now = residentMegabytes(pid);
    grown.push(now - before);
    say(`${name}, ${IDLE} idle connections: ${before.toFixed(0)} MB before, ${now.toFixed(0)} MB with them`);
    const closed = new Promise((resolve) => child.once("close", resolve));
    child.stdin?.end();
    await closed;
  }
  const [relay = Number.NaN, server = Number.NaN] = grown;
  say(`${"".padEnd(24)}what they take is ${(relay / server).toFixed(2)} × what they take of bare node:https`);
}

function startPart(part: string, message: object): ChildProcess {
  const profile = PROFILES === undefined ? [] : ["--cpu-prof", "--cpu-prof-dir", join(PROFILES, part)];
  const child = fork(new URL("./run.ts", import.meta.url), ["relay"], {
    env: { ...process.env, AGENTID_BENCH_PART: part },
    execPath: "taskset",
    execArgv: ["-c", String(PROXY_CORE), process.execPath, "--expose-gc", ...process.execArgv, ...profile],
  });
  child.send(message);
  return child;
}

function answerOf<Answer>(child: ChildProcess, part: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null) => reject(new Error(`the ${part} part ended with code ${code}`));
    child.once("message", (answer) => {
      child.off("exit", ended);
      resolve(answer as Answer);
    });
    child.once("exit", ended);
  });
}

/** What the generator and nginx read from files. */
function writeFiles(directory: string, { client, server, ca }: BenchAddresses) {
  const written = (name: string, pem: string) => {
    const file = join(directory, name);
    writeFileSync(file, pem, { mode: 0o600 });
    return file;
  };
  return {
    client: { cert: written("client.pem", client.cert), key: written("client.key", client.key) },
    server: {
      cert: written("server.pem", server.cert),
      key: written("server.key", server.key),
      ca: written("ca.pem", ca),
    },
  };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other);
  const middle = sorted.length >> 1;
  const high = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? Number.NaN) + high) / 2;
}
