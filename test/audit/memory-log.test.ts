import { expect, test } from "vitest";
import { createMemoryAuditLog } from "../../src/audit/memory-log.js";
import { systemClock } from "../../src/platform/clock.js";

test("the log in memory chains as the one on disk and keeps the newest entries", async () => {
  const log = createMemoryAuditLog({ clock: systemClock, keep: 10 });
  const receipts = Array.from({ length: 25 }, (_, i) => log.append("call", { i }));
  expect(log).toMatchObject({ size: 25, head: receipts[24]?.hash });
  const entries = await log.read(20, 3);
  expect(entries.map(({ sequence, fields, hash }) => ({ sequence, i: fields.i, hash }))).toEqual(
    receipts.slice(20, 23).map(({ sequence, hash }) => ({ sequence, i: sequence, hash })),
  );
  expect((await log.read(0, 1))[0]?.sequence).toBeGreaterThan(0);
  expect(await log.read(25, 5)).toEqual([]);
  await log.close();
  expect(() => log.append("call", {})).toThrow(expect.objectContaining({ code: "audit-closed" }));
});
