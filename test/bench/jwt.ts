/**
 * FetchJWTSVID over the socket, beside the same call of a bare grpc-js server in the same process: one after the other (p50), and many at once (rate).
 * Bars: p50 at most 0.5 ms, 5,000/s.
 */
import type { SpiffeWorkloadAPIClient } from "../../src/workload-api/generated/workload.js";
import { connectTo, secure, startServer } from "./workload-api/parent.js";

const ROUNDS = 3;
const ONE_BY_ONE = 1_000;
const TOGETHER = 4_000;
const AT_ONCE = 64;

const server = await startServer(10);
const metadata = secure();

function fetch(client: SpiffeWorkloadAPIClient): Promise<void> {
  return new Promise((resolve, reject) => {
    client.fetchJwtsvid({ audience: ["orders"], spiffeId: "" }, metadata, (error) =>
      error ? reject(error) : resolve(),
    );
  });
}

async function p50(client: SpiffeWorkloadAPIClient): Promise<number> {
  const times: number[] = [];
  for (let index = 0; index < ONE_BY_ONE; index++) {
    const started = performance.now();
    await fetch(client);
    times.push(performance.now() - started);
  }
  return times.sort((one, other) => one - other)[ONE_BY_ONE / 2] ?? 0;
}

async function rate(client: SpiffeWorkloadAPIClient): Promise<number> {
  let left = TOGETHER;
  const started = performance.now();
  const worker = async () => {
    while (left-- > 0) await fetch(client);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return (TOGETHER * 1_000) / (performance.now() - started);
}

const best = { ours: { p50: Number.POSITIVE_INFINITY, rate: 0 }, bare: { p50: Number.POSITIVE_INFINITY, rate: 0 } };
const clients = { ours: connectTo(server.path), bare: connectTo(server.barePath) };
// In turns, and the best of each: others use this machine too.
for (let round = 0; round < ROUNDS; round++) {
  for (const which of ["bare", "ours"] as const) {
    if (round === 0) await rate(clients[which]);
    best[which].p50 = Math.min(best[which].p50, await p50(clients[which]));
    best[which].rate = Math.max(best[which].rate, await rate(clients[which]));
  }
}
for (const which of ["ours", "bare"] as const) {
  const name = which === "ours" ? "FetchJWTSVID" : "bare unary call";
  process.stdout.write(`${name.padEnd(23)} p50 ${best[which].p50.toFixed(2)} ms, ${Math.round(best[which].rate)}/s\n`);
}
for (const client of Object.values(clients)) client.close();
await server.stop();
