import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { openAuditLog } from "../../src/audit/chained-log.js";
import { verifyAuditLog } from "../../src/audit/verify.js";
import { systemClock } from "../../src/platform/clock.js";

test.each(["append", "appendInTurn"])("what %s is done with survives kill -9, and the log goes on", async (how) => {
  const directory = mkdtempSync(join(tmpdir(), "agentid-kill-"));
  const hooks = fileURLToPath(new URL("../source-hooks.ts", import.meta.url));
  const program = fileURLToPath(new URL("./writer.ts", import.meta.url));
  const writer = spawn(process.execPath, ["--import", hooks, program, directory, how], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let acknowledged = -1;
  for await (const line of createInterface({ input: writer.stdout })) {
    acknowledged = Number(line);
    if (acknowledged >= 500 && !writer.killed) writer.kill("SIGKILL");
  }
  if (writer.signalCode === null) await once(writer, "exit");
  expect(writer.signalCode).toBe("SIGKILL");
  const { entries, problems } = await verifyAuditLog(directory);
  expect(problems).toEqual([]);
  expect(entries).toBeGreaterThan(acknowledged);
  const log = await openAuditLog(directory, { clock: systemClock });
  expect(log).toMatchObject({ size: entries, findings: [] });
  await log.close();
  rmSync(directory, { recursive: true });
});
