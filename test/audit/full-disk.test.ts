import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openAuditLog } from "../../src/audit/chained-log.js";
import { verifyAuditLog } from "../../src/audit/verify.js";
import { systemClock } from "../../src/platform/clock.js";

let mounted: string | undefined;

/** A real filesystem of 64 KiB, where this machine lets us mount one. */
beforeAll(() => {
  const directory = mkdtempSync(join(tmpdir(), "agentid-full-"));
  try {
    execFileSync("/bin/mount", ["-t", "tmpfs", "-o", "size=64k,mode=0700", "none", directory], { stdio: "ignore" });
    mounted = directory;
  } catch {
    rmSync(directory, { recursive: true });
  }
});
afterAll(() => {
  if (mounted === undefined) return;
  // Lazily: a failed test leaves its log open, and must not leave the mount behind.
  execFileSync("/bin/umount", ["-l", mounted]);
  rmSync(mounted, { recursive: true });
});

test("on a full disk every append throws, nothing half written stays, and it works again when there is room", async (context) => {
  if (mounted === undefined) return context.skip("mounting needs root");
  const log = await openAuditLog(join(mounted, "audit"), { clock: systemClock });
  const ballast = join(mounted, "ballast");
  writeFileSync(ballast, Buffer.alloc(40 * 1024));
  const unwritable = expect.objectContaining({ code: "audit-unwritable" });
  const fillDisk = () => {
    for (;;) log.append("call", { text: "x".repeat(3_000) });
  };
  expect(fillDisk).toThrow(unwritable);
  const { size } = log;
  expect(() => log.append("call", { text: "y".repeat(5_000) })).toThrow(unwritable);
  expect(() => log.append("call", { text: "y".repeat(5_000) })).toThrow(unwritable);
  // Of a turn that does not fit as a whole, none is recorded, also not the small one that would fit by itself.
  const turn = [log.appendInTurn("call", { small: true }), log.appendInTurn("call", { text: "y".repeat(5_000) })];
  for (const entry of turn) await expect(entry).rejects.toMatchObject({ code: "audit-unwritable" });
  expect(log.size).toBe(size);
  rmSync(ballast);
  expect(await log.appendInTurn("call", { after: true })).toMatchObject({ sequence: size });
  expect(log.findings).toEqual([]);
  await log.close();
  expect(await verifyAuditLog(join(mounted, "audit"))).toMatchObject({
    entries: size + 1,
    problems: [],
    head: log.head,
  });
  expect(readFileSync(join(mounted, "audit", "log.ndjson"), "utf8")).not.toMatch(/yyy|small/);
  expect(statSync(mounted).isDirectory()).toBe(true);
});
