import { describe, expect, it, test } from "vitest";
import type { AccessRequest, Decision } from "../../src/policy/access-request.js";
import type { Call } from "../../src/relay/exchange.js";
import { KnownCall, KnownCalls } from "../../src/relay/known-calls.js";
import { requestTarget } from "../../src/relay/request-target.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { runRelay, runUpstream, shop } from "./running-relay.js";

const RULES = "rules:\n  - { name: reads, allow: { from: agents/tests, to: invoices, path: /v1/* } }\n";
const NARROWED = "rules:\n  - { name: none, deny: { to: invoices } }\n";

test("a call that comes again is decided, recorded and forwarded as the first was, and denied when its rule is gone", async () => {
  const invoices = await runUpstream("invoices", "http", (_request, response) => response.end("ok"));
  const running = await runRelay({ services: [invoices.service], rules: RULES });
  try {
    const get = async (path: string) => (await fetch(`${running.urlOf("invoices")}${path}`)).status;
    for (const _ of Array.from({ length: 4 })) expect(await get("/v1/7?page=1")).toBe(200);
    running.setRules(NARROWED);
    expect([await get("/v1/7?page=1"), await get("/v1/7?page=1")]).toEqual([403, 403]);
    running.setRules(RULES);
    expect(await get("/v1/7?page=1")).toBe(200);
    const decisions = running.record.entries.filter(({ kind }) => kind === "decision").map(({ fields }) => fields);
    const reads = decisions.filter(({ rule }) => rule === "reads");
    expect([decisions.length, reads.length]).toEqual([7, 5]);
    expect(new Set(decisions.map(({ decision }) => decision)).size).toBe(7);
    // Each is what the first was, which had to be worked out.
    const [first] = reads;
    for (const other of reads) expect({ ...other, decision: "" }).toEqual({ ...first, decision: "" });
    expect(decisions.filter(({ rule }) => rule === "none").map(({ verdict }) => verdict)).toEqual(["DENY", "DENY"]);
    expect(invoices.arrived.map(({ url }) => url)).toEqual(Array.from({ length: 5 }, () => "/v1/7?page=1"));
  } finally {
    await running.close();
    invoices.close();
  }
});

const point = {} as Parameters<KnownCalls<string>["find"]>[1];
const service = { name: "invoices" } as Call["service"];
const question = (): AccessRequest => ({
  subject: { type: "spiffe", id: "spiffe://shop.local/agents/a" },
  action: { name: "http:GET" },
  resource: { type: "http", id: "spiffe://shop.local/services/invoices" },
});

function call(
  more: { method?: string; raw?: string; caller?: Partial<NonNullable<Call["caller"]>>; opens?: true } = {},
) {
  const caller = {
    ...{ id: SpiffeId.of(shop, "agents/a"), detail: "pid 1", evidence: "kernel" as const, launchedBy: [] },
    ...{ certificateSha256: undefined, ...more.caller },
  };
  const request = { method: more.method ?? "GET", url: more.raw ?? "/v1/7" };
  const webSocket = more.opens && { head: Buffer.alloc(0) };
  return { caller, request, service, target: requestTarget(request.url), webSocket } as unknown as Call;
}

describe("of the calls of a leg", () => {
  const twice = (calls: KnownCalls<string>, given: Call) => {
    calls.find(given, point, question);
    return calls.find(given, point, question);
  };

  it("one that was made once is not kept, one that was made twice is", () => {
    const calls = new KnownCalls<string>();
    expect(calls.find(call(), point, question)).toBeUndefined();
    const known = calls.find(call(), point, question);
    expect(known).toBeInstanceOf(KnownCall);
    expect(calls.find(call(), point, question)).toBe(known);
  });

  it.each([
    ["of another caller", call({ caller: { id: SpiffeId.of(shop, "agents/b") } })],
    ["of a sub-agent", call({ caller: { launchedBy: ["spiffe://shop.local/agents/top"] } })],
    ["on other evidence", call({ caller: { evidence: "weak" } })],
    ["of another process", call({ caller: { detail: "pid 2" } })],
    ["of another method", call({ method: "DELETE" })],
    ["of another target", call({ raw: "/v1/8" })],
    ["with a query", call({ raw: "/v1/7?x=1" })],
    ["that opens a WebSocket", call({ opens: true })],
  ])("one %s is another", (_what, other) => {
    const calls = new KnownCalls<string>();
    const known = twice(calls, call());
    expect(twice(calls, call())).toBe(known);
    const found = twice(calls, other);
    expect(found).toBeInstanceOf(KnownCall);
    expect(found).not.toBe(known);
    expect(calls.find(call(), point, question)).toBe(known);
  });

  it("none is known of a caller that has no identity, nor one with a target of many characters", () => {
    const calls = new KnownCalls<string>();
    expect(twice(calls, { ...call(), caller: undefined })).toBeUndefined();
    expect(twice(calls, call({ raw: `/${"a".repeat(2_000)}` }))).toBeUndefined();
  });

  it("all are forgotten when the policy or the service is another", () => {
    const calls = new KnownCalls<string>();
    const known = twice(calls, call());
    expect(calls.find(call(), { ...point }, question)).toBeUndefined();
    expect(twice(calls, call())).not.toBe(known);
    expect(calls.find({ ...call(), service: { ...service } }, point, question)).toBeUndefined();
  });

  it("no more are kept than a thousand", () => {
    const calls = new KnownCalls<string>();
    const known = twice(calls, call());
    for (let at = 0; at < 1_024; at += 1) calls.find(call({ raw: `/v2/${at}` }), point, question);
    expect(twice(calls, call())).not.toBe(known);
  });
});

test("what is recorded is worked out anew for a decision that differs in more than its id", () => {
  const known = new KnownCall<string>(question());
  const values = {};
  const like = {
    id: "a1",
    allowed: true,
    rule: "r",
    at: "p:1",
    reason: "x",
    engine: "rules",
    values,
    policyDigest: "d",
  };
  let made = 0;
  const fieldsOf = (change: Partial<Decision>) => {
    const decision = { ...like, ...change } as Decision;
    return known.fieldsOf(decision, () => {
      made += 1;
      return { decision: decision.id, verdict: decision.allowed ? "ALLOW" : "DENY" };
    }).canonical;
  };
  expect(fieldsOf({})).toBe('{"decision":"a1","verdict":"ALLOW"}');
  expect(fieldsOf({ id: "a2" })).toBe('{"decision":"a2","verdict":"ALLOW"}');
  expect(made).toBe(1);
  expect(fieldsOf({ id: "a3", allowed: false })).toBe('{"decision":"a3","verdict":"DENY"}');
  const changes: Partial<Decision>[] = [
    ...[{ rule: "s" }, { at: "p:2" }, { reason: "y" }, { engine: "cedar" }, { values: {} }, { policyDigest: "e" }],
    ...[{ deniedAbove: "spiffe://shop.local/agents/b" }, { shadow: [] }],
  ];
  for (const change of changes) {
    fieldsOf({});
    const before = made;
    fieldsOf(change);
    expect([change, made]).toEqual([change, before + 1]);
  }
});
