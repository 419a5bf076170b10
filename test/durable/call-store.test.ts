import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type CallStore, createCallStore } from "../../src/durable/call-store.js";
import { systemClock } from "../../src/platform/clock.js";
import { PATIENT, storeThread } from "../relay/durable-relay.js";

let directory: string;
let path: string;
let store: CallStore;
const sweeps: { delayMs: number; run: () => void }[] = [];
let now = 1_000_000;

const request = (scope: string) => ({ scope, caller: "a", fingerprint: "f" });
const answer = { status: 200, headers: [], body: Buffer.from("done") };
const newStore = (options: { path?: string | undefined } = {}) =>
  createCallStore({
    path,
    maxBytes: 4 * 1024 * 1024,
    keepMs: () => 10_000,
    clock: {
      now: () => now,
      after(delayMs, run) {
        sweeps.push({ delayMs, run });
        return () => undefined;
      },
    },
    thread: storeThread,
    ...options,
  });

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "agentid-store-"));
  path = join(directory, "calls.sqlite");
  sweeps.length = 0;
  now = 1_000_000;
  store = newStore();
});

afterEach(async () => {
  await store.close();
  rmSync(directory, { recursive: true });
});

it("answers what is asked in one turn each for itself", async () => {
  const scopes = Array.from({ length: 300 }, (_, index) => request(`k${index % 100}`));
  const found = await Promise.all(scopes.map((each) => store.claim(each, { again: false })));
  expect(found.filter(({ found }) => found === "nothing")).toHaveLength(100);
  expect(found.filter(({ found }) => found === "sent")).toHaveLength(200);
});

it("opens nothing before it is asked, nor after it was closed", async () => {
  expect(existsSync(path)).toBe(false);
  await store.close();
  await expect(store.claim(request("k"), { again: false })).rejects.toMatchObject({ code: "durable-store" });
  expect(existsSync(path)).toBe(false);
});

it("keeps a key for as long as it should, and what it is told for another one", async () => {
  await store.claim(request("k"), { again: false });
  await store.answer(request("k"), answer);
  now += 9_999;
  expect(await store.claim(request("k"), { again: false })).toMatchObject({ found: "answer" });
  now += 1;
  expect(await store.claim(request("k"), { again: false })).toEqual({ found: "nothing" });
});

it("sweeps what an earlier run left, where there is something", async () => {
  expect(sweeps).toEqual([]);
  await store.claim(request("k"), { again: false });
  await store.close();
  sweeps.length = 0;
  store = newStore();
  expect(sweeps).toHaveLength(1);
  now += 20_000;
  sweeps[0]?.run();
  // The next one follows when it is done.
  await expect.poll(() => sweeps.length, PATIENT).toBeGreaterThan(1);
  expect(await store.claim(request("k"), { again: false })).toEqual({ found: "nothing" });
});

it("one that cannot be done stops no other of its turn", async () => {
  const large = { ...answer, body: Buffer.alloc(100 * 1024) };
  const names = Array.from({ length: 12 }, (_, index) => request(`k${index}`));
  await Promise.all(names.map((each) => store.claim(each, { again: false })));
  const broken = { ...answer, status: Number.NaN, headers: undefined as unknown as string[] };
  const results = await Promise.allSettled([
    store.answer(names[0] ?? request(""), large),
    store.answer(names[1] ?? request(""), broken),
    store.answer(names[2] ?? request(""), answer),
  ]);
  expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
  const found = await Promise.all(names.slice(0, 3).map((each) => store.claim(each, { again: false })));
  expect(found.map(({ found }) => found)).toEqual(["answer", "sent", "answer"]);
});

it("runs on the machine's clock too", async () => {
  const own = createCallStore({
    path: undefined,
    maxBytes: 1e6,
    keepMs: () => 1e6,
    clock: systemClock,
    thread: storeThread,
  });
  expect(await own.claim(request("k"), { again: false })).toEqual({ found: "nothing" });
  await own.release(request("k"));
  expect(await own.claim(request("k"), { again: false })).toEqual({ found: "nothing" });
  await own.close();
});
