import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { plainName } from "../../../src/http/request-headers.js";
import type { StrictRequest } from "../../fuzz/strict-http.js";
import { requestClasses } from "./classes.js";
import { exchange, type Listener, runListeners } from "./listeners.js";
import { CLAIM } from "./spoofed-identity.js";
import type { Expected, ListenerKind, Vector } from "./vector.js";

/** Every class of bad input at every listener that it concerns, over raw sockets. */

const KINDS: Readonly<Record<ListenerKind, number>> = {
  "http service": 2,
  "MCP service": 2,
  AuthZEN: 2,
  documents: 2,
  "control API": 1,
};
const CALLER = "URI=spiffe://shop.local/agents/tests";

let running: Awaited<ReturnType<typeof runListeners>>;

beforeAll(async () => {
  running = await runListeners();
});
afterAll(() => running.close());

const ways = Object.entries(KINDS).flatMap(([kind, count]) =>
  Array.from({ length: count }, (_, index) => ({ kind: kind as ListenerKind, index })),
);

it("the list of listeners is the one that is tested", () => {
  const counted = Object.groupBy(running.listeners, ({ kind }) => kind);
  expect(Object.fromEntries(Object.entries(counted).map(([kind, of]) => [kind, of.length]))).toEqual(KINDS);
});

describe.each(ways)("$kind, way $index", ({ kind, index }) => {
  const listener = () => running.listeners.filter((one) => one.kind === kind)[index] as Listener;
  for (const { name, concerns, vectors } of requestClasses) {
    if (concerns[kind] !== true) continue;
    const concerned = vectors.filter(({ notFor }) => notFor?.[kind] === undefined);
    it.each(concerned)(`${name}: $what`, (vector) => holds(listener(), vector));
  }
});

async function holds(listener: Listener, { request, expected }: Vector): Promise<void> {
  const before = listener.arrivals();
  if (expected.is !== "arrives") {
    const control = await exchange(listener, {});
    expect(control.status).toBe(200);
    expect(listener.arrivals()).toBe(before + 1);
  }
  const [soundArrived, counted] = [listener.service?.arrived.at(-1), listener.arrivals()];

  const answer = await exchange(listener, request);
  const arrived = listener.arrivals() - counted;
  expect(listener.service?.faults ?? []).toEqual([]);
  expect(answer.head).not.toMatch(/^access-control-allow-/im);
  switch (expected.is) {
    case "refused":
      expect(arrived).toBe(0);
      if (listener.service === undefined) expect(answer.status === 0 || answer.status >= 400).toBe(true);
      else expect(shown(answer, expected)).toEqual(expected);
      return;
    case "breaks off":
      expect(arrived).toBe(0);
      expect(answer.status === 0 || answer.status >= 400).toBe(true);
      return;
    case "alone":
      // Whoever sends garbage behind a request may get no answer to it either.
      expect(arrived).toBeLessThanOrEqual(1);
      expect(listener.service?.arrived.at(-1)).toEqual(soundArrived);
      return;
    case "arrives":
      expect({ status: answer.status, arrived }).toEqual({ status: 200, arrived: 1 });
      isClean(listener.service?.arrived.at(-1), expected.lacks ?? []);
  }
}

/** What the relay said and put on record before it said so. */
function shown(answer: { status: number; body: string }, expected: Expected & { is: "refused" }): Expected {
  const said = JSON.parse(answer.body || "{}") as { code?: string; error?: { code: number; data?: { code?: string } } };
  const last = running.record.entries.findLast(({ kind }) => kind === "decision");
  expect(last?.fields.verdict).toBe("DENY");
  const inAnswer = said.code ?? said.error?.data?.code;
  if (inAnswer !== undefined && inAnswer !== "denied") expect(inAnswer).toBe(last?.fields.rule);
  return {
    is: "refused",
    status: answer.status,
    code: String(last?.fields.rule),
    ...(expected.jsonRpc === undefined || said.error === undefined ? {} : { jsonRpc: said.error.code }),
  };
}

function isClean(request: StrictRequest | undefined, lacks: readonly string[]): void {
  if (request === undefined) throw new Error("nothing has arrived");
  const named = (wanted: string) => request.headers.filter(([name]) => plainName(name.toLowerCase()) === wanted);
  for (const name of lacks) {
    const left = named(name).filter(([, value]) => !value.endsWith(CALLER) && !/^:[A-Za-z0-9+/=]+:$/.test(value));
    expect(left).toEqual([]);
  }
  expect(JSON.stringify(request.headers)).not.toContain(CLAIM);
  expect(named("x-forwarded-client-cert")).toEqual([["X-Forwarded-Client-Cert", expect.stringContaining(CALLER)]]);
  expect(named("client-cert")).toHaveLength(1);
  expect(named("host")).toEqual([[expect.stringMatching(/^host$/i), "localhost"]]);
  for (const [, value] of named("connection")) expect(value).toMatch(/^(?:keep-alive|close)$/);
}
