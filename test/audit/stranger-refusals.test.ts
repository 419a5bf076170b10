import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createMemoryAuditLog } from "../../src/audit/memory-log.js";
import { createStrangerRefusals, type StrangerRefusal } from "../../src/audit/stranger-refusals.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { runs } from "../properties.js";

const MINUTE = 60_000;
const BOUNDS = { atOnce: 3, everyMs: MINUTE, firstSumMs: MINUTE, lastSumMs: 4 * MINUTE, kinds: 4 };

const refusal = (more: Partial<StrangerRefusal> = {}): StrangerRefusal => ({
  ...{
    leg: "outbound",
    service: "payments",
    code: "no-identity",
    who: "uid 1000",
    detail: "sh, pid 7",
    reason: "nobody",
  },
  ...more,
});

async function world() {
  const clock = createTestClock();
  const log = createMemoryAuditLog({ clock });
  const told: string[] = [];
  const strangers = createStrangerRefusals(log, clock, (words) => told.push(words), BOUNDS);
  const sums = async () => (await log.read(0, 10_000)).map(({ kind, fields }) => ({ kind, ...fields }));
  const flood = (times: number, more?: Partial<StrangerRefusal>) =>
    Array.from({ length: times }, () => strangers.isRecorded(refusal(more))).filter(Boolean).length;
  return { clock, log, told, strangers, sums, flood };
}

describe("refusals of strangers", () => {
  test("are recorded one by one, the first of them, and then as a sum with the last of them", async () => {
    const { clock, flood, sums, told } = await world();
    expect(flood(3)).toBe(3);
    expect(flood(997)).toBe(0);
    expect(flood(1, { detail: "last, pid 9", reason: "the last" })).toBe(0);
    expect(await sums()).toEqual([]);
    clock.advance(MINUTE);
    expect(await sums()).toEqual([
      {
        ...{ kind: "refusals.counted", caller: "uid 1000", callerDetail: "last, pid 9", count: 998, leg: "outbound" },
        ...{ reason: "the last", rule: "no-identity", service: "payments", verdict: "DENY" },
        ...{ since: "2026-11-22T12:00:00.000Z", until: "2026-11-22T12:01:00.000Z" },
      },
    ]);
    expect(told).toEqual(["998 more refusals like these in 60 s: no-identity of uid 1000 at payments"]);
  });

  test("of another user, at another service, for another reason, on another leg are others", async () => {
    const { flood } = await world();
    expect(flood(100)).toBe(3);
    expect(flood(100, { who: "uid 1001" })).toBe(3);
    expect(flood(100, { service: "invoices" })).toBe(3);
    expect(flood(100, { code: "http-malformed" })).toBe(3);
  });

  test("are recorded again after a while, one by one as before", async () => {
    const { clock, flood } = await world();
    expect(flood(10)).toBe(3);
    clock.advance(MINUTE);
    expect(flood(10)).toBe(1);
    clock.advance(60 * MINUTE);
    expect(flood(10)).toBe(3);
    clock.jump(-60 * MINUTE);
    expect(flood(10)).toBe(0);
  });

  test("are summed less and less often while they go on, and soon again after a pause", async () => {
    const { clock, flood, sums } = await world();
    const times: number[] = [];
    for (let minute = 1; minute <= 16; minute += 1) {
      flood(100);
      const before = (await sums()).length;
      clock.advance(MINUTE);
      if ((await sums()).length > before) times.push(minute);
    }
    expect(times).toEqual([1, 3, 7, 11, 15]);
    clock.advance(60 * MINUTE);
    const before = (await sums()).length;
    flood(100);
    clock.advance(MINUTE);
    expect((await sums()).length).toBe(before + 1);
  });

  test("by very many users share one count, and what is quiet is forgotten", async () => {
    const { clock, flood } = await world();
    const all = Array.from({ length: 1_000 }, (_, index) => flood(1, { who: `uid ${index}` }));
    expect(all.filter((one) => one === 1)).toHaveLength(BOUNDS.kinds + BOUNDS.atOnce);
    clock.advance(60 * MINUTE);
    expect(flood(10, { who: "uid 5000" })).toBe(BOUNDS.atOnce);
  });

  test("that were counted are recorded at the end, and a record that cannot be written harms nobody", async () => {
    const { flood, strangers, sums, clock } = await world();
    flood(10);
    strangers.close();
    strangers.close();
    expect(await sums()).toMatchObject([{ count: 7 }]);
    clock.advance(60 * MINUTE);
    expect(await sums()).toHaveLength(1);
    const broken = {
      append: () => {
        throw new Error("the disk is full");
      },
    };
    const deaf = createStrangerRefusals(broken, clock, () => undefined, BOUNDS);
    for (let i = 0; i < 10; i += 1) deaf.isRecorded(refusal());
    expect(() => clock.advance(60 * MINUTE)).not.toThrow();
  });

  test("property: none is lost, and what is recorded grows with time, not with them", async () => {
    const step = fc.record({
      who: fc.constantFrom("uid 1", "uid 2", "uid 3", "uid 4", "uid 5", "uid 6"),
      times: fc.integer({ min: 1, max: 50 }),
      waits: fc.integer({ min: 0, max: 5 * MINUTE }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const { clock, flood, strangers, sums } = await world();
        const start = clock.now();
        let [asked, alone] = [0, 0];
        for (const { who, times, waits } of steps) {
          asked += times;
          alone += flood(times, { who });
          clock.advance(waits);
        }
        strangers.close();
        const entries = await sums();
        const summed = entries.reduce((sum, entry) => sum + Number((entry as { count?: unknown }).count), 0);
        expect(alone + summed).toBe(asked);
        const minutes = (clock.now() - start) / MINUTE;
        const kinds = BOUNDS.kinds + 1;
        expect(alone).toBeLessThanOrEqual(kinds * (BOUNDS.atOnce + minutes));
        expect(entries.length).toBeLessThanOrEqual(kinds * (minutes + 1));
      }),
      { numRuns: runs(100) },
    );
  });
});
