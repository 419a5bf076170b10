/**
 * FetchJWTSVID over the socket, beside the same call of a bare grpc-js server in the same process: one after the other (p50), and many at once (rate),
 * each with the processor time that the server took for a call. Asked by grpc-js, as Node programs do, and in bare HTTP/2 frames, since
 * on few cores a client that costs as much as the server takes half of what is measured. A token is handed out again for the same audience; the last line
 * asks for another audience each time, so that each answer is a signature and two entries of the record.
 * Bars: p50 at most 0.5 ms, 5,000/s.
 */
import { connectTo, secure, startServer } from "./workload-api/parent.js";
import { rawClient, tokensOf } from "./workload-api/raw-client.js";

const ROUNDS = 5;
const ONE_BY_ONE = 1_000;
const TOGETHER = 4_000;
const AT_ONCE = 64;

const server = await startServer(10);
const metadata = secure();

interface Client {
  fetch(): Promise<unknown>;
  close(): void;
}

function grpcClient(path: string): Client {
  const client = connectTo(path);
  return {
    fetch: () =>
      new Promise((resolve, reject) => {
        client.fetchJwtsvid({ audience: ["orders"], spiffeId: "" }, metadata, (error, answer) =>
          error ? reject(error) : resolve(answer),
        );
      }),
    close: () => client.close(),
  };
}

async function p50({ fetch }: Client): Promise<number> {
  const times: number[] = [];
  for (let index = 0; index < ONE_BY_ONE; index++) {
    const started = performance.now();
    await fetch();
    times.push(performance.now() - started);
  }
  return times.sort((one, other) => one - other)[ONE_BY_ONE / 2] ?? 0;
}

async function rate({ fetch }: Client): Promise<number> {
  let left = TOGETHER;
  const started = performance.now();
  const worker = async () => {
    while (left-- > 0) await fetch();
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return (TOGETHER * 1_000) / (performance.now() - started);
}

/** Microseconds of the server's processor time for each of `calls`. */
async function costOf(calls: number, measured: () => Promise<number>): Promise<[number, number]> {
  const before = await server.tell<NodeJS.CpuUsage>("processorTime");
  const result = await measured();
  const after = await server.tell<NodeJS.CpuUsage>("processorTime");
  return [result, (after.user + after.system - before.user - before.system) / calls];
}

const clients = {
  "bare unary call, grpc-js": grpcClient(server.barePath),
  "FetchJWTSVID, grpc-js": grpcClient(server.path),
  "bare unary call, HTTP/2": rawClient(server.barePath),
  "FetchJWTSVID, HTTP/2": rawClient(server.path),
  "… each signed anew": rawClient(server.path, "each another"),
};
const [first, second] = [
  await clients["FetchJWTSVID, HTTP/2"].fetch(),
  await clients["FetchJWTSVID, HTTP/2"].fetch(),
].map(tokensOf);
if (first?.length !== 1 || second?.length !== 1 || first[0] !== second[0])
  throw new Error("one token, handed out again");
const other = tokensOf(await clients["… each signed anew"].fetch());
if (other[0] === first[0]) throw new Error("another token for another audience");

const figures = Object.values(clients).map((client) => ({
  client,
  p50: [] as number[],
  alone: [] as number[],
  rate: [] as number[],
  together: [] as number[],
}));
for (const { client } of figures) await rate(client);
// In turns, and the best of each: others use this machine too.
for (let round = 0; round < ROUNDS; round++) {
  for (const figure of figures) {
    const [median, alone] = await costOf(ONE_BY_ONE, () => p50(figure.client));
    const [highest, together] = await costOf(TOGETHER, () => rate(figure.client));
    figure.p50.push(median);
    figure.alone.push(alone);
    figure.rate.push(highest);
    figure.together.push(together);
  }
}
for (const [index, name] of Object.keys(clients).entries()) {
  const figure = figures[index];
  if (figure === undefined) continue;
  process.stdout.write(
    `${name.padEnd(25)} p50 ${Math.min(...figure.p50).toFixed(2)} ms (server ${Math.min(...figure.alone).toFixed(0)} µs a call), ` +
      `${AT_ONCE} at once ${Math.round(Math.max(...figure.rate))}/s (server ${Math.min(...figure.together).toFixed(0)} µs a call)\n`,
  );
  figure.client.close();
}
await server.stop();
