import { existsSync, rmSync, writeFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import {
  ask,
  codeOf,
  type DurableRelay,
  type DurableRelayOptions,
  held,
  RULES,
  runDurableRelay,
  storeFile,
} from "./durable-relay.js";

let relay: DurableRelay | undefined;
let file = storeFile();

async function running(options: DurableRelayOptions): Promise<DurableRelay> {
  relay = await runDurableRelay(options);
  return relay;
}

afterEach(async () => {
  await relay?.close();
  relay = undefined;
  file.remove();
  file = storeFile();
});

const done: DurableRelayOptions["answer"] = (request, response) =>
  request.resume().on("end", () => response.end("done"));

describe("the store", () => {
  it("is not there, nor is its thread, before the first key", async () => {
    const { url } = await running({ answer: done, path: file.path });
    await ask(url, { body: "x" });
    await ask(url, { key: "k", method: "GET" });
    expect(existsSync(file.path)).toBe(false);
    await ask(url, { key: "k" });
    expect(existsSync(file.path)).toBe(true);
  });

  it("that is damaged refuses calls with a key, and no others", async () => {
    writeFileSync(file.path, "no database".repeat(1_000));
    const { url, orders, outcomes } = await running({ answer: done, path: file.path });
    const refused = await ask(url, { key: "k" });
    expect([refused.status, codeOf(refused)]).toEqual([503, "durable-store"]);
    expect(refused.body).toContain(file.path);
    expect((await ask(url, {})).status).toBe(200);
    expect((await ask(url, { key: "k", method: "GET" })).status).toBe(200);
    expect(orders.arrived).toHaveLength(2);
    expect(outcomes()[0]).toMatchObject({ status: 503, error: "durable-store" });
  });

  it("that works again is used again", async () => {
    let now = Date.now();
    writeFileSync(file.path, "no database".repeat(1_000));
    const { url } = await running({
      answer: done,
      path: file.path,
      clock: { now: () => now, after: (delayMs, callback) => cancelOf(setTimeout(callback, delayMs).unref()) },
    });
    expect((await ask(url, { key: "k" })).status).toBe(503);
    rmSync(file.path);
    now += 2_000;
    expect((await ask(url, { key: "k" })).status).toBe(200);
    expect((await ask(url, { key: "k" })).headers["idempotency-replayed"]).toBe("true");
  });

  it("that cannot keep an answer loses no answer, and nothing runs twice", async () => {
    const { url, orders, problems } = await running({
      answer: done,
      store: (store) => ({ ...store, answer: () => Promise.reject(new Error("the disk is full")) }),
    });
    expect(await ask(url, { key: "k" })).toMatchObject({ status: 200, body: "done" });
    expect(problems).toEqual(["the disk is full"]);
    const again = await ask(url, { key: "k" });
    expect([again.status, codeOf(again)]).toEqual([409, "outcome-unknown"]);
    expect(orders.arrived).toHaveLength(1);
  });

  it("has the intent before the request is sent, and nothing is sent without it", async () => {
    const order: string[] = [];
    const { url, orders } = await running({
      answer: (request, response) => {
        order.push("sent");
        request.resume().on("end", () => response.end("done"));
      },
      store: (store) => ({
        ...store,
        async claim(request, options) {
          if (order.length > 3) throw new Error("the disk is full");
          const found = await store.claim(request, options);
          order.push("intended");
          return found;
        },
        async answer(request, answer) {
          await store.answer(request, answer);
          order.push("answered");
        },
      }),
    });
    await ask(url, { key: "a" });
    order.push("seen");
    expect(order).toEqual(["intended", "sent", "answered", "seen"]);
    expect(codeOf(await ask(url, { key: "b" }))).toBe("durable-store");
    expect(orders.arrived).toHaveLength(1);
    expect((await ask(url, {})).status).toBe(200);
  });

  it.each(["a new call", "a kept answer"])("is slow, and the policy changes meanwhile: %s is refused", async (what) => {
    let narrow: () => void = () => undefined;
    const {
      url,
      orders,
      running: relay,
    } = await running({
      answer: done,
      store: (store) => ({
        ...store,
        async claim(request, options) {
          const found = await store.claim(request, options);
          narrow();
          return found;
        },
      }),
    });
    const before = what === "a new call" ? 0 : 1;
    if (before === 1) await ask(url, { key: "k" });
    narrow = () => relay.setRules("rules: []\n");
    const refused = await ask(url, { key: "k" });
    expect([refused.status, codeOf(refused)]).toEqual([503, "decision-failed"]);
    expect(orders.arrived).toHaveLength(before);
    narrow = () => undefined;
    relay.setRules(RULES);
    expect(await ask(url, { key: "k" })).toMatchObject({ status: 200, body: "done" });
    expect(orders.arrived).toHaveLength(1);
  });

  it("is missing: calls with a key are refused", async () => {
    const { url, orders } = await running({ answer: done, withoutStore: true });
    expect(codeOf(await ask(url, { key: "k" }))).toBe("durable-store");
    expect(orders.arrived).toHaveLength(0);
    expect((await ask(url, {})).status).toBe(200);
  });
});

describe("after a restart", () => {
  it("answers are given again, and what was under way has no known outcome", async () => {
    const service = held();
    const first = await running({ answer: service.listener, path: file.path });
    const answered = ask(first.url, { key: "answered" });
    (await service.at(0)).response.end("done");
    await answered;
    const cut = ask(first.url, { key: "under-way" });
    cut.catch(() => undefined);
    await service.at(1);
    await first.close();
    const { url, orders } = await running({ answer: done, path: file.path });
    expect(await ask(url, { key: "answered" })).toMatchObject({
      body: "done",
      headers: { "idempotency-replayed": "true" },
    });
    expect(codeOf(await ask(url, { key: "under-way" }))).toBe("outcome-unknown");
    expect(orders.arrived).toHaveLength(0);
    expect((await ask(url, { key: "new" })).status).toBe(200);
  });

  it("nothing is left where all was in memory", async () => {
    const first = await running({ answer: done });
    await ask(first.url, { key: "k" });
    await first.close();
    const { url } = await running({ answer: done });
    expect((await ask(url, { key: "k" })).headers["idempotency-replayed"]).toBeUndefined();
  });

  it("a second relay on the same file refuses calls with a key while the first runs", async () => {
    const first = await running({ answer: done, path: file.path });
    await ask(first.url, { key: "k" });
    const second = await runDurableRelay({ answer: done, path: file.path });
    try {
      expect(codeOf(await ask(second.url, { key: "k" }))).toBe("durable-store");
      expect((await ask(second.url, {})).status).toBe(200);
    } finally {
      await second.close();
    }
    expect((await ask(first.url, { key: "k" })).headers["idempotency-replayed"]).toBe("true");
  });
});

function cancelOf(timer: NodeJS.Timeout): () => void {
  return () => clearTimeout(timer);
}
