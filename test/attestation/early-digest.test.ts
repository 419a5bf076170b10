import { createHash } from "node:crypto";
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import {
  beginDigest,
  beginDigestOfOwnExecutable,
  takeDigestOfOwnExecutable,
} from "../../src/attestation/early-digest.js";
import * as fileDigest from "../../src/attestation/file-digest.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { currentPlatform } from "../../src/platform/index.js";
import { atEnd, cleanUp, temporaryFolder } from "./processes.js";

afterEach(() => {
  vi.restoreAllMocks();
  return cleanUp();
});

const later = (): bigint => BigInt(Date.now() + 10_000) * 1_000_000n;
const sha256 = (data: string | Buffer): string => createHash("sha256").update(data).digest("hex");
/** Whether a digest of what these tests write could be kept at all: not in a container, whose files lie on overlayfs. */
const keepable = ((): boolean => {
  const handle = currentPlatform().openProcess({ pid: process.pid });
  const executable = handle.openExecutable();
  if (executable !== undefined) closeSync(executable.fd);
  handle.close();
  return executable?.timesShowWrites === true;
})();

function file(text: string): string {
  const path = join(temporaryFolder(), "program");
  writeFileSync(path, text);
  return path;
}

function opened(path: string): { fd: number; timesShowWrites: boolean } {
  const fd = openSync(path, "r");
  atEnd(() => closeSync(fd));
  return { fd, timesShowWrites: true };
}

describe.runIf(keepable)("a digest that is begun early", () => {
  test("is the file's, shared while it is made and kept afterwards; another file has its own", async () => {
    const hashing = vi.spyOn(fileDigest, "sha256OfDescriptor");
    const [path, other] = [file("one"), file("two")];
    const digests = executableDigests({ now: later, early: beginDigest(path, later) });
    expect(await digests.digestOf(opened(path))).toBe(sha256("one"));
    expect(await digests.digestOf(opened(path))).toBe(sha256("one"));
    expect(hashing).not.toHaveBeenCalled();
    expect(await digests.digestOf(opened(other))).toBe(sha256("two"));
    expect(hashing).toHaveBeenCalledTimes(1);
  });

  test("of our own executable, once", async () => {
    beginDigestOfOwnExecutable();
    const early = takeDigestOfOwnExecutable();
    expect(takeDigestOfOwnExecutable()).toBeUndefined();
    const hashing = vi.spyOn(fileDigest, "sha256OfDescriptor");
    const digests = executableDigests({ early });
    expect(await digests.digestOf(opened(process.execPath))).toBe(sha256(readFileSync(process.execPath)));
    expect(hashing).not.toHaveBeenCalled();
  });

  test("is not the file's that was changed meanwhile, or later", async () => {
    const meanwhile = file("one");
    const early = beginDigest(meanwhile, later);
    appendFileSync(meanwhile, "!");
    expect(await early?.sha256).toBeUndefined();
    expect(await executableDigests({ now: later, early }).digestOf(opened(meanwhile))).toBe(sha256("one!"));

    const afterwards = file("one");
    const digests = executableDigests({ now: later, early: beginDigest(afterwards, later) });
    expect(await digests.digestOf(opened(afterwards))).toBe(sha256("one"));
    appendFileSync(afterwards, "!");
    expect(await digests.digestOf(opened(afterwards))).toBe(sha256("one!"));
  });

  test("is not begun for a file that has changed within two seconds", () => {
    const path = file("one");
    expect(beginDigest(path)).toBeUndefined();
    expect(beginDigest(path, later)).toBeDefined();
  });

  test("does not outlive a clock that is set back, not even before the cache was there", async () => {
    const hashing = vi.spyOn(fileDigest, "sha256OfDescriptor");
    const path = file("one");
    let offset = 10_000;
    const now = (): bigint => BigInt(Date.now() + offset) * 1_000_000n;
    const early = beginDigest(path, now);
    await early?.sha256;
    offset = 5_000;
    const digests = executableDigests({ now, early });
    expect(await digests.digestOf(opened(path))).toBe(sha256("one"));
    expect(hashing).toHaveBeenCalledTimes(1);
    // The control.
    expect(await digests.digestOf(opened(path))).toBe(sha256("one"));
    expect(hashing).toHaveBeenCalledTimes(1);
  });

  test.runIf(existsSync("/dev/shm"))("is not begun on tmpfs", () => {
    const folder = mkdtempSync("/dev/shm/agentid-early-");
    atEnd(() => rmSync(folder, { recursive: true }));
    const path = join(folder, "program");
    writeFileSync(path, "one");
    expect(beginDigest(path, later)).toBeUndefined();
  });
});

test("a file that is not there is nobody's loss", () => {
  expect(() => beginDigest("/nowhere/at/all")).toThrow("ENOENT");
});
