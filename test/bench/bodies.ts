/**
 * Bodies of hostile JSON at the real relay and the real decision point: how long the event loop is kept at once, in processor time of its own thread
 * (bar: 10 ms, of the median of the rounds: what else the machine does counts too, as far as the kernel cannot tell it apart). Who sends them, and the service they go to, are in another thread.
 */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import type { RunningService } from "../../src/relay/running-service.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { runAuthzen } from "../authzen/running-authzen.js";
import { shop } from "../relay/running-relay.js";
import type { Sent } from "./bodies/load.js";
import { shapes } from "./bodies/long-json.js";
import { ownMilliseconds } from "./bodies/own-processor-time.js";

const BAR_MS = 10;
const ROUNDS = 5;
const MEBIBYTE = 1024 * 1024;
const ROOM = 2_000;
const folder = mkdtempSync(join(tmpdir(), "agentid-bodies-"));
const socketPath = join(folder, "s.sock");
const service = (name: string, protocol: "http" | "mcp"): RunningService => ({
  name,
  id: SpiffeId.of(shop, `services/${name}`),
  protocol,
  listenPort: undefined,
  upstream: { kind: "unix", path: socketPath },
});
const rules = `rules:
  - { name: tools, allow: { from: agents/tests, to: tools, tools: ["*"] }, when: "!has(args.amount) || args.amount <= 1000" }
  - { name: plain, allow: { from: agents/tests, to: plain } }
  - { name: asked, deny: { from: agents/tests, to: tools, tools: ["*"] }, when: "has(context.amount) && context.amount > 1000" }
`;
const running = await runAuthzen({ services: [service("tools", "mcp"), service("plain", "http")], rules });
const load = new Worker(new URL("./bodies/load.ts", import.meta.url), {
  workerData: { socketPath },
  execArgv: ["--import", new URL("../source-hooks.ts", import.meta.url).href],
});
await once(load, "message");

const json = { "content-type": "application/json" };
const mcp = { ...json, accept: "application/json, text/event-stream" };
const call = (args: string) =>
  `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":${args}}}`;
const question = `"subject":{"type":"spiffe","id":"spiffe://shop.local/agents/tests"},"action":{"name":"tools/call"},"resource":{"type":"mcp-tool","id":"spiffe://shop.local/services/tools","properties":{"tool":"t"}}`;
const point = { socketPath: running.unix.socketPath as string };
type Door = readonly [name: string, most: number, sent: (object: string) => Omit<Sent, "times">];
const doors: readonly Door[] = [
  ["MCP", 4 * MEBIBYTE, (args) => ({ url: running.urlOf("tools"), path: "/mcp", headers: mcp, body: call(args) })],
  [
    "MCP, with a header that repeats an argument",
    4 * MEBIBYTE,
    (args) => ({
      url: running.urlOf("tools"),
      path: "/mcp",
      headers: { ...mcp, "mcp-param-x": "y" },
      body: call(args),
    }),
  ],
  ["HTTP", MEBIBYTE, (body) => ({ url: running.urlOf("plain"), path: "/x", headers: json, body })],
  [
    "AuthZEN evaluation",
    MEBIBYTE,
    (context) => ({
      ...point,
      path: "/access/v1/evaluation",
      headers: { ...json, host: "localhost" },
      body: `{${question},"context":${context}}`,
    }),
  ],
  [
    "AuthZEN evaluations",
    MEBIBYTE,
    (context) => ({
      ...point,
      path: "/access/v1/evaluations",
      headers: { ...json, host: "localhost" },
      body: `{${question},"context":${context},"evaluations":[{},{},{},{}]}`,
    }),
  ],
  [
    "AuthZEN search",
    MEBIBYTE,
    (context) => ({
      ...point,
      path: "/access/v1/search/action",
      headers: { ...json, host: "localhost" },
      body: `{${question},"context":${context}}`,
    }),
  ],
];

const chosen = process.env.AGENTID_BENCH_BODIES;
/** Together only those that take longest. */
const TOGETHER = new Set([
  "40,000 empty objects",
  "7,000 objects of different keys",
  "20,000 rows of a table",
  "objects of six different keys",
  "objects of numbered keys",
  "fractions",
  "one text",
]);
let worst = 0;
let most = 0;
for (const [door, largest, sent] of doors) {
  if (chosen !== undefined && door !== chosen) continue;
  await longestTurn({ ...sent("{}"), times: 6 });
  for (const [name, objectOf] of shapes) {
    for (const [size, bytes, times] of [
      ["16 KiB", 16 * 1024 - 400, 1],
      ["1 MiB", MEBIBYTE - ROOM, 1],
      ["1 MiB", MEBIBYTE - ROOM, 6],
      ...(largest > MEBIBYTE ? ([1, 6] as const).map((count) => ["4 MiB", largest - ROOM, count] as const) : []),
    ] as const) {
      if (times > 1 && !TOGETHER.has(name)) continue;
      const beside = times > 1 ? { beside: sent("{}").body } : {};
      const message: Sent = { ...sent(objectOf(bytes)), times, ...beside };
      const kept: number[] = [];
      let inAll = Number.POSITIVE_INFINITY;
      let answer = "";
      for (let round = 0; round < ROUNDS; round += 1) {
        const begun = ownMilliseconds();
        const turn = await longestTurn(message);
        kept.push(turn.kept);
        inAll = Math.min(inAll, ownMilliseconds() - begun);
        answer = turn.answer;
      }
      kept.sort((left, right) => left - right);
      const [median = 0, longest = 0] = [kept[ROUNDS >> 1], kept.at(-1)];
      worst = Math.max(worst, median);
      most = Math.max(most, longest);
      const many = times === 1 ? "" : ` × ${times} at once`;
      process.stdout.write(
        `bodies  ${door}: ${name}, ${size}${many}`.padEnd(84) +
          ` loop kept ${median.toFixed(2).padStart(5)} ms, at most ${longest.toFixed(2).padStart(5)} ms  in all ${inAll.toFixed(0).padStart(5)} ms  ${answer.replaceAll(/\s+/g, " ").replace(/(?<=^\d+) .*?(?=,|$)/, "")}\n`,
      );
    }
  }
}
process.stdout.write(
  `bodies  longest ${worst.toFixed(2)} ms, in a single round ${most.toFixed(2)} ms (bar: ${BAR_MS} ms)\n`,
);
if (worst > BAR_MS) process.exitCode = 1;
await load.terminate();
await running.close();
rmSync(folder, { recursive: true, force: true });

/** How much processor time the longest turn of the event loop took from the sending to the answer. */
async function longestTurn(message: Sent): Promise<{ kept: number; answer: string }> {
  let kept = 0;
  let last = 0;
  let over = false;
  const tick = (): void => {
    const now = ownMilliseconds();
    kept = Math.max(kept, now - last);
    last = now;
    if (!over) setImmediate(tick);
  };
  const answered = once(load, "message");
  load.postMessage(message);
  // What it costs to hand the body to the thread that sends it is not measured.
  await new Promise((resolve) => setImmediate(resolve));
  last = ownMilliseconds();
  setImmediate(tick);
  const [answer] = (await answered) as [string];
  over = true;
  return { kept, answer };
}
