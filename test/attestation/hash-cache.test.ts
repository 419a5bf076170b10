import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { afterEach, expect, test, vi } from "vitest";
import * as fileDigest from "../../src/attestation/file-digest.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { atEnd, cleanUp, temporaryFolder } from "./processes.js";

afterEach(() => {
  vi.restoreAllMocks();
  return cleanUp();
});

const LATER = () => BigInt(Date.now() + 10_000) * 1_000_000n;
const sha256 = (data: string | Buffer): string => createHash("sha256").update(data).digest("hex");

function opened(path: string): { fd: number; localFilesystem: boolean } {
  const fd = openSync(path, "r");
  atEnd(() => closeSync(fd));
  return { fd, localFilesystem: true };
}

function file(text: string): string {
  const path = join(temporaryFolder(), "program");
  writeFileSync(path, text);
  return path;
}

test("hashes what the descriptor is open on", async () => {
  expect(await executableDigests().digestOf(opened(file("one")))).toBe(sha256("one"));
  expect(await executableDigests().digestOf(opened(process.execPath))).toBe(sha256(readFileSync(process.execPath)));
});

test("a changed file is another file", async () => {
  const digests = executableDigests(LATER);
  const path = file("one");
  expect(await digests.digestOf(opened(path))).toBe(sha256("one"));
  writeFileSync(path, "two");
  expect(await digests.digestOf(opened(path))).toBe(sha256("two"));
});

test("requests at the same time get the same answer, and a descriptor closed under one does not spoil the other", async () => {
  const digests = executableDigests();
  const first = { fd: openSync(process.execPath, "r"), localFilesystem: true };
  const second = opened(process.execPath);
  const failing = digests.digestOf(first).catch(() => undefined);
  const answer = digests.digestOf(second);
  closeSync(first.fd);
  await failing;
  expect(await answer).toBe(sha256(readFileSync(process.execPath)));
});

test("hashing a large executable leaves the event loop to others", async () => {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await executableDigests().digestOf(opened(process.execPath));
  delay.disable();
  // Half of the samples: the machine's other work may delay any single one.
  expect(delay.percentile(50) / 1e6).toBeLessThan(10);
});

test("caches only what has settled and lies on a local filesystem", async () => {
  const hashing = vi.spyOn(fileDigest, "sha256OfDescriptor");
  const path = file("one");
  const fresh = executableDigests();
  const settled = executableDigests(LATER);
  const timesOf = async (digests: ReturnType<typeof executableDigests>, localFilesystem: boolean): Promise<number> => {
    hashing.mockClear();
    for (let time = 0; time < 3; time += 1) await digests.digestOf({ ...opened(path), localFilesystem });
    return hashing.mock.calls.length;
  };
  expect(await timesOf(fresh, true)).toBe(3);
  expect(await timesOf(settled, true)).toBe(1);
  expect(await timesOf(executableDigests(LATER), false)).toBe(3);
});
