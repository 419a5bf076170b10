/**
 * What the relay adds to a call, side by side in one run: a direct call, a bare Node mutual-TLS proxy on undici (no policy, no record), the
 * inbound leg (mutual TLS, policy of 10 rules, record on disk), and both legs. Latency at a fixed 1,000 requests/s on 16 connections, and
 * the highest rate of 16 callers (bars: inbound p50 ≤ 0.25 ms added; rate ≥ 0.8 × the bare proxy). Each part is a process of its own.
 */
import { type ChildProcess, fork } from "node:child_process";
import { Pool } from "undici";
import { type BenchAddresses, runPart } from "./relay/parts.js";

const CONNECTIONS = 16;
const RATE = 1_000;
const SECONDS = 6;
const WARM_UP_SECONDS = 2;
const PART = process.env.AGENTID_BENCH_PART;

const say = (text: string) => process.stdout.write(`${text}\n`);

if (PART === undefined) await compare();
else await runPart(PART);

async function compare(): Promise<void> {
  const children: ChildProcess[] = [];
  const byPart = new Map<string, ChildProcess>();
  const start = <Answer>(part: string, message: object): Promise<Answer> => {
    const child = fork(new URL("./run.ts", import.meta.url), ["relay"], {
      env: { ...process.env, AGENTID_BENCH_PART: part },
    });
    children.push(child);
    byPart.set(part, child);
    child.send(message);
    return new Promise((resolve, reject) => {
      child.once("message", (answer) => resolve(answer as Answer));
      child.once("exit", (code) => reject(new Error(`the ${part} part ended with code ${code}`)));
    });
  };
  try {
    const upstream = await start<{ port: number }>("upstream", {});
    const relay = await start<BenchAddresses>("relay", upstream);
    const bare = await start<{ port: number }>("bare-proxy", { ...upstream, ...relay });
    const tls = { cert: relay.client.cert, key: relay.client.key, rejectUnauthorized: false };
    const pool = (url: string) =>
      new Pool(url, {
        connections: CONNECTIONS,
        pipelining: 1,
        allowH2: false,
        connect: url.startsWith("https") ? tls : {},
      });
    /** Microseconds of processor time that `part` has used. */
    const usageOf = (part: string): Promise<number> =>
      new Promise((resolve) => {
        const child = byPart.get(part);
        if (child === undefined) return resolve(0);
        child.once("message", (usage: NodeJS.CpuUsage) => resolve(usage.user + usage.system));
        child.send("usage");
      });
    const targets = [
      { name: "direct, no proxy", pool: pool(`http://127.0.0.1:${upstream.port}`), part: "none" },
      { name: "bare undici mTLS proxy", pool: pool(`https://127.0.0.1:${bare.port}`), part: "bare-proxy" },
      { name: "relay, inbound leg", pool: pool(`https://127.0.0.1:${relay.inbound}`), part: "relay" },
      { name: "relay, both legs", pool: pool(`http://127.0.0.1:${relay.outbound}`), part: "relay" },
    ];
    say(`${"".padEnd(24)}   p50 ms   p99 ms  added p50    max/s  µs processor/call`);
    let direct = 0;
    let bareRate = 0;
    for (const { name, pool: target, part } of targets) {
      const { p50, p99 } = await atFixedRate(target);
      const before = await usageOf(part);
      const highest = await atHighestRate(target);
      const processor = ((await usageOf(part)) - before) / (highest * SECONDS);
      if (part === "none") direct = p50;
      if (part === "bare-proxy") bareRate = highest;
      const ratio = part === "relay" ? `   ${(highest / bareRate).toFixed(2)} × bare` : "";
      const columns = [
        ...[p50.toFixed(3).padStart(8), p99.toFixed(3).padStart(8), (p50 - direct).toFixed(3).padStart(10)],
        ...[String(highest).padStart(8), processor.toFixed(0).padStart(18)],
      ];
      say(`${name.padEnd(24)} ${columns.join(" ")}${ratio}`);
      await target.close();
    }
  } finally {
    // They end by themselves then, and leave no file behind.
    for (const child of children) child.disconnect();
  }
}

async function call(pool: Pool): Promise<void> {
  const { statusCode, body } = await pool.request({ path: "/v1/invoices", method: "GET" });
  await body.dump();
  if (statusCode !== 200) throw new Error(`status ${statusCode}`);
}

/** Open loop: each call starts at its time whether or not earlier ones have ended, and its latency counts from that time. */
async function atFixedRate(pool: Pool): Promise<{ p50: number; p99: number }> {
  const latencies: number[] = [];
  const total = RATE * (SECONDS + WARM_UP_SECONDS);
  const running: Promise<void>[] = [];
  const start = performance.now();
  for (let sent = 0; sent < total; ) {
    const due = Math.min(total, Math.floor(((performance.now() - start) * RATE) / 1000));
    for (; sent < due; sent += 1) {
      const number = sent;
      const began = performance.now();
      running.push(
        call(pool).then(() => {
          if (number >= RATE * WARM_UP_SECONDS) latencies.push(performance.now() - began);
        }),
      );
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(running);
  latencies.sort((one, other) => one - other);
  const at = (share: number) => latencies[Math.floor(latencies.length * share)] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99) };
}

async function atHighestRate(pool: Pool): Promise<number> {
  let done = 0;
  const end = performance.now() + SECONDS * 1000;
  const caller = async () => {
    while (performance.now() < end) {
      await call(pool);
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, caller));
  return Math.round(done / SECONDS);
}
