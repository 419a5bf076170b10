/**
 * AuthZEN over HTTP beside Cerbos, whose binary npm ships: the same light client, the same question, one trivial rule on each side, connections kept alive
 * (bar: ≥ 2 × in every cell). All servers are on one core, which they do not share with the client, and have their turns there and back again (ABBA).
 * Each answer of ours is recorded in a file before it goes out and asked for by a process or certificate that is known. So Cerbos stands here twice:
 * as it comes, over plain TCP, without a record and asked by anybody; and as we are, on the same kind of door, with its audit log in a file (which it
 * writes behind its answers). Rates are for the clock; processor time is what other work on the machine does not stretch.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pinning } from "./authzen/cores.js";
import { type Contender, type Measured, startLoadGenerator } from "./authzen/load.js";
import { downloadCerbos, type RunningCerbos, startAgentid, startCerbos } from "./authzen/servers.js";

const CONNECTIONS = [1, 8, 32];
const BLOCKS = 3;
const TURN = { milliseconds: 300, requests: 1_200 };
/** So that all code is compiled that will be. */
const WARM_UP = { milliseconds: 1_000, requests: 5_000 };
const cache = join(import.meta.dirname, "..", "..", ".cache");
const work = mkdtempSync(join(tmpdir(), "agentid-bench-authzen-"));

const generator = startLoadGenerator(join(cache, "bench"));
const agentid = await startAgentid(join(work, "project"), generator.exe);
const binary = downloadCerbos(join(cache, "cerbos"));
const cerbos: RunningCerbos[] = [];
try {
  const [tls, socket] = agentid.doors;
  if (binary !== undefined) {
    const start = async (name: string, door: "tcp" | "tls" | "unix", audit: boolean) => {
      const running = await startCerbos(binary, join(work, door), { name, door, audit }, agentid.credentials);
      cerbos.push(running);
    };
    await start("cerbos", "tcp", false);
    await start("cerbos, TLS, audit log", "tls", true);
    await start("cerbos, socket, audit log", "unix", true);
  }
  const [plain, likeTls, likeSocket] = cerbos;
  const contenders: readonly Contender[] = [...cerbos, tls, socket];
  process.stdout.write(`authzen  load by ${generator.name}; ${pinning}\n`);
  for (const contender of contenders) await generator.run(contender, 8, WARM_UP);
  for (const connections of CONNECTIONS) {
    const turns = new Map<Contender, Measured[]>(contenders.map((contender) => [contender, []]));
    for (let block = 0; block < BLOCKS; block += 1) {
      for (const contender of [...contenders, ...contenders.toReversed()]) {
        turns.get(contender)?.push(await generator.run(contender, connections, TURN));
      }
    }
    const besides = new Map<Contender, readonly (RunningCerbos | undefined)[]>([
      [tls, [plain, likeTls]],
      [socket, [plain, likeSocket]],
    ]);
    for (const contender of contenders) {
      const own = turns.get(contender) ?? [];
      const rate = median(own.map(({ requests, seconds }) => requests / seconds));
      const cpu = median(own.map(({ cpuMicros }) => cpuMicros));
      const ratios = (besides.get(contender) ?? []).flatMap((other) =>
        other === undefined ? [] : [ratioTo(own, other, turns.get(other) ?? [])],
      );
      process.stdout.write(
        `authzen  ${String(connections).padStart(2)} connections  ${contender.name.padEnd(26)} ${rate.toFixed(0).padStart(6)}/s  ${cpu.toFixed(0).padStart(4)} µs processor time${ratios.join("")}\n`,
      );
    }
  }
  for (const each of cerbos) {
    if (each.name.endsWith("audit log") && each.recorded() === 0) throw new Error(`${each.name} has recorded nothing`);
  }
  process.stdout.write(`authzen  agentid's record has ${agentid.recorded()} entries\n`);
} finally {
  generator.stop();
  agentid.stop();
  await Promise.all(cerbos.map((each) => each.stop()));
  rmSync(work, { recursive: true, force: true });
}

/** The median over blocks: what slows a block down slows both. */
function ratioTo(own: readonly Measured[], { name }: Contender, other: readonly Measured[]): string {
  const overBlocks = (of: (one: readonly Measured[], two: readonly Measured[]) => number) =>
    median(Array.from({ length: BLOCKS }, (_, at) => of(blockOf(own, at), blockOf(other, at)))).toFixed(2);
  const rate = overBlocks((one, two) => rateOf(one) / rateOf(two));
  const cpu = overBlocks((one, two) => cpuOf(two) / cpuOf(one));
  return `   ${rate} × ${name} by rate, ${cpu} × by processor time`;
}

function blockOf(turns: readonly Measured[], block: number): readonly Measured[] {
  return turns.slice(2 * block, 2 * block + 2);
}

function rateOf(turns: readonly Measured[]): number {
  return sum(turns.map(({ requests }) => requests)) / sum(turns.map(({ seconds }) => seconds));
}

function cpuOf(turns: readonly Measured[]): number {
  return sum(turns.map(({ requests, cpuMicros }) => requests * cpuMicros)) / sum(turns.map(({ requests }) => requests));
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function median(values: readonly number[]): number {
  return values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN;
}
