import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openAuditLog } from "../../src/audit/chained-log.js";
import { systemClock } from "../../src/platform/clock.js";

/** For entries without fractions, Python's compact JSON with sorted keys is RFC 8785. */
const VERIFY = `
import hashlib, json, sys
prev = "0" * 64
for number, line in enumerate(open(sys.argv[1], encoding="utf-8")):
    entry = json.loads(line)
    claimed = entry.pop("hash")
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    actual = hashlib.sha256(canonical.encode()).hexdigest()
    if actual != claimed or entry["prev"] != prev or entry["sequence"] != number:
        sys.exit(f"entry {number}")
    prev = claimed
print(number + 1, prev)
`;

test("ten lines of Python, which share nothing with us, verify the log and find the changed entry", async (context) => {
  if (spawnSync("python3", ["--version"]).status !== 0) return context.skip("python3 is not installed");
  const directory = mkdtempSync(join(tmpdir(), "agentid-python-"));
  try {
    const log = await openAuditLog(directory, { clock: systemClock });
    for (let i = 0; i < 50; i += 1)
      log.append("call", { i, text: 'é "\n\u0007😀\u2028', list: [null, true, { b: -1, a: "" }] });
    await log.close();
    const file = join(directory, "log.ndjson");
    expect(execFileSync("python3", ["-c", VERIFY, file], { encoding: "utf8" })).toBe(`50 ${log.head}\n`);
    writeFileSync(file, readFileSync(file, "utf8").replace('"i":31', '"i":32'));
    const { status, stderr } = spawnSync("python3", ["-c", VERIFY, file], { encoding: "utf8" });
    expect({ status, stderr: stderr.trim() }).toEqual({ status: 1, stderr: "entry 31" });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
