import { hash } from "node:crypto";
import { EventEmitter } from "node:events";
import { request as requestHttp } from "node:http";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { longBodies } from "../../src/http/long-bodies.js";
import { systemClock } from "../../src/platform/clock.js";
import { hasRoomInTurn, nextTurn } from "../../src/platform/turns.js";
import { mcpAccessRequest } from "../../src/policy/access-request-of.js";
import { digestInTurns, extentOfRequest, jsonInTurns, requestDigest } from "../../src/policy/request-digest.js";
import { inlineJson } from "../../src/relay/inline-json.js";
import { type RunningAuthzen, runAuthzen } from "../authzen/running-authzen.js";
import { runUpstream, type Upstream } from "./running-relay.js";

/** What arrived at the service, byte for byte. */
let arrived: Buffer[] = [];
let upstream: Upstream;
let running: RunningAuthzen;

beforeAll(async () => {
  upstream = await runUpstream("tools", "mcp", (request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.once("end", () => {
      arrived.push(Buffer.concat(chunks));
      response.writeHead(200, { "content-type": "application/json" });
      response.end('{"jsonrpc":"2.0","id":1,"result":{}}');
    });
  });
  running = await runAuthzen({
    services: [upstream.service],
    rules: `rules:
  - { name: all, allow: { from: agents/tests, to: tools, tools: ["*"] }, when: "!has(args.n) || args.n < 5" }
`,
  });
});
afterAll(async () => {
  await running.close();
  upstream.close();
});

interface Answer {
  readonly status: number;
  readonly text: string;
}

function post(to: object, body: string, headers: Record<string, string> = {}): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const accept = "application/json, text/event-stream";
  const sent = requestHttp({
    ...to,
    method: "POST",
    headers: { ...headers, "content-type": "application/json", accept },
  });
  sent.once("error", reject);
  sent.once("response", (response) => {
    let text = "";
    response.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
    response.once("end", () => resolve({ status: response.statusCode ?? 0, text }));
  });
  sent.end(body);
  return promise;
}

const relay = () => ({ host: "127.0.0.1", port: Number(new URL(running.urlOf("tools")).port), path: "/mcp" });
const authzen = (path: string) => ({ socketPath: running.unix.socketPath, path: `/access/v1/${path}`, setHost: false });
const call = (args: string) =>
  `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":${args}}}`;
const subject = '"subject":{"type":"spiffe","id":"spiffe://shop.local/agents/tests"},"action":{"name":"tools/call"}';
const tool = '"resource":{"type":"mcp-tool","id":"spiffe://shop.local/mcp/tools","properties":{"tool":"t"}}';
const sha256 = (data: string | Buffer) => hash("sha256", data);
const objects = (count: number) => `{"l":[${Array.from({ length: count }, () => "{}").join(",")}]}`;

/** How often the event loop turned until `work` was done. */
async function turnsOf<Value>(work: () => Promise<Value>): Promise<{ turns: number; value: Value }> {
  let turns = 0;
  let done = false;
  const count = () => {
    turns += 1;
    if (!done) setImmediate(count);
  };
  setImmediate(count);
  const value = await work();
  done = true;
  return { turns, value };
}

/** What is read, in bytes of memory and characters, and what is written, in one turn. */
const [READ_A_TURN, CHARACTERS_A_TURN] = [48 * 1024, 16 * 1024];
const COUNT = 40_000;
const LONG = objects(COUNT);
const BYTES_OF_OBJECT = 44;
const READ = (COUNT * BYTES_OF_OBJECT + LONG.length) / READ_A_TURN - 1;
const WRITTEN = LONG.length / CHARACTERS_A_TURN;

test("MCP: the event loop turns while a long call is read, written and digested; what was decided is what arrives", async () => {
  arrived = [];
  const { turns, value } = await turnsOf(() => post(relay(), call(LONG)));
  expect(value.status).toBe(200);
  expect(turns).toBeGreaterThan(READ + 2 * WRITTEN);
  expect(arrived.map(sha256)).toEqual([sha256(call(LONG))]);
  const decision = running.record.entries.findLast(({ kind }) => kind === "decision");
  const request = {
    ...{ caller: "spiffe://shop.local/agents/tests", service: "spiffe://shop.local/mcp/tools" },
    ...{ method: "tools/call", tool: "t", args: JSON.parse(LONG), callerIs: { evidence: decision?.fields.evidence } },
  } as unknown as Parameters<typeof mcpAccessRequest>[0];
  const digest = sha256(JSON.stringify(mcpAccessRequest(request)));
  expect(decision?.fields).toMatchObject({ verdict: "ALLOW", requestDigest: digest });
  expect(String(decision?.fields.target)).toBe("t");
});

test("MCP: a long call that the rules deny does not arrive, nor one that is no JSON or repeats no argument", async () => {
  arrived = [];
  const denied = await post(relay(), call(LONG.replace("{", '{"n":9,')));
  expect(denied.text).toContain("denied by policy");
  expect(await post(relay(), `${call(LONG)}x`)).toMatchObject({ status: 400 });
  expect(await post(relay(), call(LONG.replace("{}", '{"a":1,"a":2}')))).toMatchObject({ status: 400 });
  const { turns, value } = await turnsOf(() => post(relay(), call(LONG), { "mcp-param-x": "y" }));
  expect(value.status).toBe(400);
  expect(turns).toBeGreaterThan(READ + COUNT / 2_048);
  expect(arrived).toEqual([]);
  const right = call(LONG.replace("{}", '{"a":"y"}'));
  expect(await post(relay(), right, { "mcp-param-x": "y" })).toMatchObject({ status: 200 });
  expect(arrived.map(sha256)).toEqual([sha256(right)]);
});

test("AuthZEN: the event loop turns while a long evaluation, batch or search is worked on", async () => {
  for (const [path, more, written] of [
    ["evaluation", "", 1],
    ["evaluations", ',"evaluations":[{},{}]', 2],
    ["search/action", "", 2],
  ] as const) {
    const { turns, value } = await turnsOf(() =>
      post(authzen(path), `{${subject},${tool},"context":${LONG}${more}}`, { host: "localhost" }),
    );
    expect(value.status, value.text).toBe(200);
    expect(turns, path).toBeGreaterThan(READ + written * WRITTEN);
  }
});

test("a long body is not read while another one is, whichever door it came to; a short one is", async () => {
  const { promise: held, resolve: leave } = Promise.withResolvers<void>();
  const connection = new EventEmitter();
  const reading = longBodies.read({ caller: "somebody else", connection, clock: systemClock }, () => held);
  const answered: number[] = [];
  const question = `{${subject},${tool},"context":${LONG}}`;
  const answers = [
    post(relay(), call(LONG)),
    ...["evaluation", "search/action"].map((path) => post(authzen(path), question, { host: "localhost" })),
  ].map((answer) => answer.then(({ status }) => answered.push(status)));
  for (let short = 0; short < 20; short += 1) {
    expect(await post(relay(), call("{}"))).toMatchObject({ status: 200 });
    for (let turn = 0; turn < 100; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }
  expect(answered).toEqual([]);
  leave();
  await Promise.all([reading, ...answers]);
  expect(answered).toEqual([200, 200, 200]);
});

test("what a long call holds is let go of once it has been decided", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const { promise: measured, resolve: goOn } = Promise.withResolvers<void>();
  let arriving = 0;
  const usual = upstream.answer;
  upstream.answer = (request, response) => {
    request.resume();
    request.once("end", async () => {
      arriving += 1;
      await measured;
      response.writeHead(200, { "content-type": "application/json" });
      response.end('{"jsonrpc":"2.0","id":1,"result":{}}');
    });
  };
  collect();
  const before = process.memoryUsage().heapUsed;
  const calls = 10;
  const answers = Array.from({ length: calls }, () => post(relay(), call(LONG)));
  await expect.poll(() => arriving, { timeout: 30_000 }).toBe(calls);
  collect();
  const bytesOfCall = (process.memoryUsage().heapUsed - before) / calls;
  goOn();
  upstream.answer = usual;
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
  // Its values take 40 bytes each at the least.
  expect(bytesOfCall).toBeLessThan(COUNT * 20);
});

test("several long bodies take turns with each other, and a short call does not wait for them", async () => {
  const order: string[] = [];
  const noted = async (name: string, answer: Promise<Answer>) => {
    const { status } = await answer;
    order.push(`${name} ${status}`);
  };
  const { turns } = await turnsOf(() =>
    Promise.all([
      ...[1, 2, 3].map((each) => noted(`long${each}`, post(relay(), call(LONG)))),
      noted("short", post(relay(), call("{}"))),
    ]),
  );
  expect(order[0]).toBe("short 200");
  expect(order.toSorted()).toEqual(["long1 200", "long2 200", "long3 200", "short 200"]);
  // One piece a turn, whoever it is of.
  expect(turns).toBeGreaterThan(3 * (READ + 2 * WRITTEN));
});

test("the pieces of several works come one after the other, one in a turn of the event loop", async () => {
  const order: string[] = [];
  let turn = 0;
  let done = false;
  const count = () => {
    turn += 1;
    if (!done) setImmediate(count);
  };
  setImmediate(count);
  const work = async (name: string) => {
    for (let piece = 0; piece < 3; piece += 1) {
      await nextTurn();
      order.push(name);
    }
    return turn;
  };
  await Promise.all(["a", "b", "c"].map(work));
  done = true;
  expect(order.join("")).toBe("abcabcabc");
  expect(turn).toBeGreaterThanOrEqual(8);
});

test("of what is short only so much is worked on in one turn of the event loop; what is very short is not counted", async () => {
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  await turn();
  expect([16 * 1024, 2_049, 2_048].map(hasRoomInTurn)).toEqual([true, false, true]);
  await turn();
  expect([9_000, 7_000, 7_000].map(hasRoomInTurn)).toEqual([true, true, false]);
  await turn();
  expect(hasRoomInTurn(7_000)).toBe(true);
  await turn();
  hasRoomInTurn(16 * 1024);
  const body = call(`{"t":"${"x".repeat(10_000)}"}`);
  expect(await Promise.all([1, 2, 3].map(() => post(relay(), body)))).toMatchObject(
    [1, 2, 3].map(() => ({ status: 200 })),
  );
  const question = `{${subject},${tool},"context":{"t":"${"x".repeat(10_000)}"}}`;
  const asked = [1, 2, 3].map(() => post(authzen("evaluation"), question, { host: "localhost" }));
  expect(await Promise.all(asked)).toMatchObject([1, 2, 3].map(() => ({ status: 200 })));
});

test("nobody's call is worked on when its caller has left: it does not arrive, and that is on record", async () => {
  arrived = [];
  const before = running.record.entries.length;
  const sent = requestHttp({ ...relay(), method: "POST", headers: { "content-type": "application/json" } });
  sent.on("error", () => undefined);
  sent.end(call(LONG), () => setImmediate(() => sent.destroy()));
  const refused = () =>
    running.record.entries
      .slice(before)
      .find(({ kind, fields }) => kind === "decision" && fields.rule === "caller-gone");
  await expect.poll(refused).toBeDefined();
  expect(arrived).toEqual([]);
});

test("what is written in turns is what JSON.stringify writes, and its digest is the same", async () => {
  const args = {
    text: `${"x".repeat(16_383)}\u{1f600}é"\n`.repeat(3),
    list: [1, -0, 1.5, 1e21, null, true, {}, [], [[""]], { 2: "b", 1: "a", k: ["\u2028"] }],
    l: Array.from({ length: 9_000 }, (_, index) => ({ index })),
  };
  let pauses = 0;
  const pause = async () => {
    pauses += 1;
  };
  expect(String(await jsonInTurns(args, pause))).toBe(JSON.stringify(args));
  const known = { caller: "spiffe://shop.local/agents/a", service: "spiffe://shop.local/mcp/s", method: "tools/call" };
  const [request, same] = [1, 2].map(() => mcpAccessRequest({ ...known, tool: "t", args })) as [never, never];
  const pieces = JSON.stringify(args).length / CHARACTERS_A_TURN;
  expect(pauses).toBeGreaterThan(pieces - 1);
  pauses = 0;
  await digestInTurns(request, pause);
  expect(pauses).toBeGreaterThan(pieces - 1);
  expect(requestDigest(request)).toBe(requestDigest(same));
  expect(extentOfRequest(request)?.characters).toBe(JSON.stringify(request).length);
  expect(extentOfRequest(same)).toBeUndefined();
});

test("of what is long only the beginning is jotted down", () => {
  const none = new Set<string>();
  expect(inlineJson({ a: 1, b: ["x", { c: null }], d: {} }, "args", none, 1_000)).toBe(
    '{a:1, b:["x", {c:null}], d:{}}',
  );
  expect(inlineJson({ a: 1, b: 2 }, "args", new Set(["args.b"]), 1_000)).toBe("{a:1, b:(sensitive)}");
  const long = inlineJson(JSON.parse(LONG), "args", none, 100);
  expect(long.length).toBeGreaterThan(100);
  expect(long.length).toBeLessThan(200);
});
