import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");

it("the code generated from the protos is current", () => {
  expect(existsSync(join(root, "node_modules/.bin/buf"))).toBe(true);
  const check = spawnSync(process.execPath, [join(root, "src/workload-api/proto/generate.mjs"), "--check"]);
  expect({ status: check.status, stderr: String(check.stderr) }).toEqual({ status: 0, stderr: "" });
});
