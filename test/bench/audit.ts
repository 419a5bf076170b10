/** The record: appends a second (bar 20,000) and entries verified a second (bar 200,000). */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openAuditLog } from "../../src/audit/chained-log.js";
import { createMemoryAuditLog } from "../../src/audit/memory-log.js";
import { verifyAuditLog } from "../../src/audit/verify.js";
import { systemClock } from "../../src/platform/clock.js";

const ENTRIES = 200_000;
const directory = mkdtempSync(join(tmpdir(), "agentid-bench-"));
const entry = {
  decision: "7f3k2m9qxc4w81hd",
  caller: "spiffe://shop.local/agents/billing",
  service: "spiffe://shop.local/mcp/payments",
  action: "tools/call",
  target: "issue_refund",
  allowed: true,
  rule: "small-refunds",
  policy: "9c1e".repeat(16),
  request: "ab12".repeat(16),
  values: { "args.amount": 900 },
};
const rate = (count: number, started: number) => Math.round((count * 1000) / (performance.now() - started));
const say = (text: string) => process.stdout.write(`${text}\n`);

try {
  const log = await openAuditLog(directory, { clock: systemClock });
  let started = performance.now();
  // In bursts, as calls come, so that the syncs between them are part of what is measured.
  for (let i = 0; i < ENTRIES; i += 1) {
    log.append("decision", entry);
    if (i % 1000 === 999) await new Promise((resolve) => setImmediate(resolve));
  }
  say(`appended   ${rate(ENTRIES, started)} entries/s (written at once, synced every 50 ms)`);
  started = performance.now();
  for (let i = 0; i < 500; i += 1) log.append("authority.rotated", entry, { sync: true });
  say(`synced     ${rate(500, started)} entries/s (each synced before append returns)`);
  await log.close();
  started = performance.now();
  const { entries, problems } = await verifyAuditLog(directory);
  say(`verified   ${rate(entries, started)} entries/s, ${entries} entries, ${problems.length} problems`);
  const memory = createMemoryAuditLog({ clock: systemClock });
  started = performance.now();
  for (let i = 0; i < ENTRIES; i += 1) memory.append("decision", entry);
  say(`in memory  ${rate(ENTRIES, started)} entries/s`);
} finally {
  rmSync(directory, { recursive: true });
}
