import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { loadConfig } from "../../src/config/load.js";
import { loadSettled } from "../../src/daemon/settled-files.js";
import { systemClock } from "../../src/platform/clock.js";

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

async function project() {
  const folder = mkdtempSync(join(tmpdir(), "agentid-settled-"));
  folders.push(folder);
  mkdirSync(join(folder, "policies"));
  writeFileSync(join(folder, "agentid.yaml"), "trustDomain: shop.local\nidentities:\n  a: { uid: 1 }\n");
  const policy = join(folder, "policies", "shop.yaml");
  writeFileSync(policy, "old");
  return { config: await loadConfig(join(folder, "agentid.yaml")), policy };
}

it("a file that is truncated and not written yet is read when it has been written", async () => {
  const { config, policy } = await project();
  const fd = openSync(policy, "r+");
  ftruncateSync(fd, 0);
  const loaded = loadSettled(config, systemClock, async () => readFileSync(policy, "utf8"));
  writeSync(fd, "new", 0);
  closeSync(fd);
  expect(await loaded).toBe("new");
});

it("what is saved while the files are read is read again", async () => {
  const { config, policy } = await project();
  let loads = 0;
  const loaded = await loadSettled(config, systemClock, async () => {
    const text = readFileSync(policy, "utf8");
    loads += 1;
    if (loads === 1) writeFileSync(policy, "saved meanwhile");
    return text;
  });
  expect(loaded).toBe("saved meanwhile");
  expect(loads).toBe(2);
});

it("a failed load is thrown, unless the files have changed under it", async () => {
  const { config, policy } = await project();
  const load = async () => {
    if (readFileSync(policy, "utf8") !== "whole") throw new Error("half a file");
    return true;
  };
  await expect(loadSettled(config, systemClock, load)).rejects.toThrow("half a file");
  writeFileSync(policy, "whole");
  expect(await loadSettled(config, systemClock, load)).toBe(true);
});
