import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { plainName } from "../../../src/http/request-headers.js";
import { requestClasses } from "./classes.js";
import { exchange, type Listener, runListeners } from "./listeners.js";
import { CLAIM } from "./spoofed-identity.js";
import type { Expected, ListenerKind, Vector } from "./vector.js";

/** How many listeners of each kind there are. */
export const KINDS: Readonly<Record<ListenerKind, number>> = {
  "http service": 3,
  "egress target": 1,
  WebSocket: 2,
  "CONNECT proxy": 1,
  gRPC: 2,
  TCP: 1,
  "TCP over TLS": 1,
  "MCP service": 2,
  AuthZEN: 2,
  documents: 2,
  "control API": 1,
};
/** What these refuse is on record, with its reason. */
const RELAY: ReadonlySet<ListenerKind> = new Set([
  "http service",
  "egress target",
  "WebSocket",
  "CONNECT proxy",
  "gRPC",
  "TCP",
  "TCP over TLS",
  "MCP service",
]);
const CALLER = "URI=spiffe://shop.local/agents/tests";

let running: Awaited<ReturnType<typeof runListeners>>;

/** Multiplies every class of bad input with the listeners of `kinds`, over raw sockets. */
export function describeTable(kinds: readonly ListenerKind[]): void {
  beforeAll(async () => {
    running = await runListeners();
  });
  afterAll(() => running.close());

  it("the listeners are those that are tested", () => {
    const counted = Object.groupBy(running.listeners, ({ kind }) => kind);
    expect(Object.fromEntries(Object.entries(counted).map(([kind, of]) => [kind, of.length]))).toEqual(KINDS);
  });

  const ways = kinds.flatMap((kind) => Array.from({ length: KINDS[kind] }, (_, index) => ({ kind, index })));
  describe.each(ways)("$kind, way $index", ({ kind, index }) => {
    const listener = () => running.listeners.filter((one) => one.kind === kind)[index] as Listener;
    for (const { name, concerns, vectors } of requestClasses) {
      if (concerns[kind] !== true) continue;
      const concerned = vectors.filter(({ notFor }) => notFor?.[kind] === undefined);
      it.each(concerned)(`${name}: $what`, (vector) => holds(listener(), name, vector));
    }
  });
}

async function holds(listener: Listener, className: string, { request, at, expected: usual }: Vector): Promise<void> {
  const expected = at?.[listener.kind] ?? usual;
  const { status = 200 } = listener;
  const before = listener.arrivals();
  if (expected.is !== "arrives") {
    const control = await exchange(listener, {});
    expect(control.status).toBe(status);
    await arrive(listener, before + 1);
  }
  const [soundArrived, counted] = [listener.last?.(), listener.arrivals()];
  const decisions = () => running.record.entries.filter(({ kind }) => kind === "decision");
  const decided = decisions().length;

  const answer = await exchange(listener, request);
  const arrived = listener.arrivals() - counted;
  expect(listener.service?.faults ?? []).toEqual([]);
  expect(answer.head).not.toMatch(/^access-control-allow-/im);
  switch (expected.is) {
    case "refused":
      expect(arrived).toBe(0);
      // Nothing of HTTP/2 is on record that its parser has refused by itself.
      if (!RELAY.has(listener.kind) || answer.head.startsWith("reset ") || answer.head.startsWith("goaway ")) {
        expect(answer.status === 0 || answer.status >= 400).toBe(true);
        return;
      }
      await expect.poll(() => decisions().length).toBeGreaterThan(decided);
      // What is no CONNECT is refused as that, whatever else is wrong with it.
      if (listener.kind === "CONNECT proxy" && className !== "CONNECT") {
        expect(answer.status).toBeGreaterThanOrEqual(400);
        expect(decisions().at(-1)?.fields.verdict).toBe("DENY");
      } else expect(shown(listener, answer, expected)).toEqual(expected);
      return;
    case "reset":
      expect(arrived).toBe(0);
      expect(answer.head).toMatch(/^(?:reset|goaway) 1$|^closed$/);
      expect(decisions()).toHaveLength(decided);
      return;
    case "breaks off":
      expect(arrived).toBe(0);
      expect(answer.status === 0 || answer.status >= 400).toBe(true);
      return;
    case "alone":
      // Whoever sends garbage behind a request may get no answer to it either.
      expect(arrived).toBeLessThanOrEqual(1);
      // It may arrive when its caller has gone: then before what comes after it.
      await exchange(listener, {});
      expect(listener.arrivals() - counted).toBeLessThanOrEqual(2);
      expect(listener.last?.()).toEqual(soundArrived);
      return;
    case "arrives":
      await arrive(listener, counted + 1);
      expect(answer.status).toBe(status);
      if (!listener.kind.startsWith("TCP")) isClean(listener, expected.lacks ?? []);
  }
}

/** A connection is accepted by the kernel before its server hears of it. */
async function arrive(listener: Listener, count: number): Promise<void> {
  if (listener.kind === "CONNECT proxy") await expect.poll(() => listener.arrivals()).toBe(count);
  else expect(listener.arrivals()).toBe(count);
}

/** What the relay said and put on record before it said so. */
function shown(
  { kind }: Listener,
  answer: { status: number; body: string },
  expected: Expected & { is: "refused" },
): Expected {
  const said = JSON.parse(answer.body || "{}") as { code?: string; error?: { code: number; data?: { code?: string } } };
  const last = running.record.entries.findLast(({ kind }) => kind === "decision");
  expect(last?.fields.verdict).toBe("DENY");
  const inAnswer = said.code ?? said.error?.data?.code;
  if (inAnswer !== undefined && inAnswer !== "denied") expect(inAnswer).toBe(last?.fields.rule);
  return {
    is: "refused",
    // gRPC says it by a status of its own, in HTTP it is 200; bytes have no place for one.
    status: kind === "gRPC" || kind.startsWith("TCP") ? expected.status : answer.status,
    code: String(last?.fields.rule),
    ...(expected.jsonRpc === undefined || said.error === undefined ? {} : { jsonRpc: said.error.code }),
  };
}

function isClean({ kind, hostThere, last }: Listener, lacks: readonly string[]): void {
  const request = last?.();
  if (request === undefined) throw new Error("nothing has arrived");
  const named = (wanted: string) => request.headers.filter(([name]) => plainName(name.toLowerCase()) === wanted);
  for (const name of lacks) {
    const left = named(name).filter(([, value]) => !value.endsWith(CALLER) && !/^:[A-Za-z0-9+/=]+:$/.test(value));
    expect(left).toEqual([]);
  }
  expect(JSON.stringify(request.headers)).not.toContain(CLAIM);
  // Nobody outside is told who calls.
  const told =
    kind === "egress target"
      ? []
      : [[expect.stringMatching(/^x-forwarded-client-cert$/i), expect.stringContaining(CALLER)]];
  expect(named("x-forwarded-client-cert")).toEqual(told);
  expect(named("client-cert")).toHaveLength(told.length);
  expect(named("host")).toEqual(hostThere === undefined ? [] : [[expect.stringMatching(/^host$/i), hostThere]]);
  for (const [, value] of named("connection"))
    expect(value).toMatch(kind === "WebSocket" ? /^Upgrade$/ : /^(?:keep-alive|close)$/);
}
