import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  copyFileSync,
  fstatSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { afterEach, describe, expect, test, vi } from "vitest";
import * as fileDigest from "../../src/attestation/file-digest.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { linux } from "../../src/platform/linux.js";
import { writersAreKeptOut } from "../../src/platform/linux-filesystem.js";
import { inSlices } from "../../src/platform/sha256-thread.js";
import { atEnd, cleanUp, isRoot, PYTHON, start, temporaryFolder, until } from "./processes.js";

afterEach(() => {
  vi.restoreAllMocks();
  return cleanUp();
});

const SECOND = 1_000_000_000n;
const LATER = { now: () => BigInt(Date.now() + 10_000) * 1_000_000n };
const sha256 = (data: string | Buffer): string => createHash("sha256").update(data).digest("hex");

function opened(path: string): { fd: number; timesShowWrites: boolean } {
  const fd = openSync(path, "r");
  atEnd(() => closeSync(fd));
  return { fd, timesShowWrites: true };
}

function file(text: string): string {
  const path = join(temporaryFolder(), "program");
  writeFileSync(path, text);
  return path;
}

test("hashes what the descriptor is open on", async () => {
  expect(await executableDigests().digestOf(opened(file("one")))).toBe(sha256("one"));
  expect(await executableDigests().digestOf(opened(file("")))).toBe(sha256(""));
  expect(await executableDigests().digestOf(opened(process.execPath))).toBe(sha256(readFileSync(process.execPath)));
});

test("requests at the same time get the same answer, and a descriptor closed under one does not spoil the other", async () => {
  const digests = executableDigests();
  const first = { fd: openSync(process.execPath, "r"), timesShowWrites: true };
  const second = opened(process.execPath);
  const failing = digests.digestOf(first).catch(() => undefined);
  const answer = digests.digestOf(second);
  closeSync(first.fd);
  await failing;
  expect(await answer).toBe(sha256(readFileSync(process.execPath)));
});

describe("a cached digest does not stand for", () => {
  /** Caches the digest of "one", lets `fool` work on the file, and asks again. */
  async function afterwards(fool: (path: string) => void): Promise<string | undefined> {
    const hashing = vi.spyOn(fileDigest, "sha256OfDescriptor");
    const digests = executableDigests(LATER);
    const path = file("one");
    expect(await digests.digestOf(opened(path))).toBe(sha256("one"));
    // The control: it is cached.
    expect(await digests.digestOf(opened(path))).toBe(sha256("one"));
    expect(hashing).toHaveBeenCalledTimes(1);
    fool(path);
    return digests.digestOf(opened(path));
  }

  const keepingTimes = (path: string, change: () => void): void => {
    const fd = openSync(path, "r");
    const { atime, mtime } = fstatSync(fd);
    change();
    utimesSync(path, atime, mtime);
    closeSync(fd);
  };

  test("a file that was written, with its times set back", async () => {
    expect(await afterwards((path) => keepingTimes(path, () => writeFileSync(path, "two")))).toBe(sha256("two"));
  });

  test("a file of the same size and times that was put in its place", async () => {
    const replaced = afterwards((path) =>
      keepingTimes(path, () => {
        writeFileSync(`${path}.new`, "two");
        renameSync(`${path}.new`, path);
      }),
    );
    expect(await replaced).toBe(sha256("two"));
  });

  test("a file that was truncated and filled again to its size, with its times set back", async () => {
    const restored = afterwards((path) =>
      keepingTimes(path, () => {
        truncateSync(path, 0);
        writeFileSync(path, "two", { flag: "r+" });
      }),
    );
    expect(await restored).toBe(sha256("two"));
  });

  test("a file that was written under another name of it", async () => {
    const linked = afterwards((path) =>
      keepingTimes(path, () => {
        linkSync(path, `${path}.link`);
        writeFileSync(`${path}.link`, "two");
      }),
    );
    expect(await linked).toBe(sha256("two"));
  });

  test("a file that was written through a shared mapping", async () => {
    const store = (path: string): void => {
      const program = "import mmap,sys; f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),3); m[0:3]=b'two'";
      expect(spawnSync(PYTHON, ["-c", program, path]).status).toBe(0);
    };
    expect(await afterwards((path) => keepingTimes(path, () => store(path)))).toBe(sha256("two"));
  });

  test("anything hashed before the clock was set back, when the same ctime can come a second time", async () => {
    const hashing = vi.spyOn(fileDigest, "sha256OfDescriptor");
    let set = 10n * SECOND;
    const digests = executableDigests({ now: () => BigInt(Date.now()) * 1_000_000n + set });
    const path = file("one");
    const ask = async (): Promise<number> => {
      hashing.mockClear();
      expect(await digests.digestOf(opened(path))).toBe(sha256("one"));
      return hashing.mock.calls.length;
    };
    expect([await ask(), await ask()]).toEqual([1, 0]);
    // Set on: nothing can come twice. Slewed a little: neither.
    set += 100n * SECOND;
    expect(await ask()).toBe(0);
    set -= SECOND / 2n;
    expect(await ask()).toBe(0);
    set -= 3n * SECOND;
    expect([await ask(), await ask()]).toEqual([1, 0]);
    // In small steps it is set back as well: no single one is enough, together they are.
    const hashes: number[] = [];
    for (let step = 0; step < 5; step += 1) {
      set -= SECOND / 4n;
      hashes.push(await ask());
    }
    expect(hashes.slice(0, 2)).toEqual([0, 0]);
    expect(hashes.filter((hashed) => hashed === 1)).toEqual([1]);
  });
});

test("caches only what has settled and lies where times show every write", async () => {
  const hashing = vi.spyOn(fileDigest, "sha256OfDescriptor");
  const path = file("one");
  const timesOf = async (digests: ReturnType<typeof executableDigests>, timesShowWrites: boolean): Promise<number> => {
    hashing.mockClear();
    for (let time = 0; time < 3; time += 1) await digests.digestOf({ ...opened(path), timesShowWrites });
    return hashing.mock.calls.length;
  };
  expect(await timesOf(executableDigests(), true)).toBe(3);
  expect(await timesOf(executableDigests(LATER), true)).toBe(1);
  expect(await timesOf(executableDigests(LATER), false)).toBe(3);
});

test("a file that changes while it is hashed has no digest", async () => {
  const real = fileDigest.sha256OfDescriptor;
  const path = file("one");
  const digests = executableDigests(LATER);
  vi.spyOn(fileDigest, "sha256OfDescriptor").mockImplementationOnce(async (fd: number) => {
    const digest = await real(fd);
    writeFileSync(path, "two");
    return digest;
  });
  const executable = opened(path);
  expect(await digests.digestOf(executable)).toBeUndefined();
  expect(digests.absence(executable)).toContain("changed while it was hashed");
  expect(await digests.digestOf(executable)).toBe(sha256("two"));
});

test("a file above the limit is not read", async () => {
  const hashing = vi.spyOn(fileDigest, "sha256OfDescriptor");
  const digests = executableDigests({ largestBytes: 3 });
  const [fits, large] = [opened(file("one")), opened(file("four"))];
  expect(await digests.digestOf(fits)).toBe(sha256("one"));
  expect(hashing).toHaveBeenCalledTimes(1);
  expect(await digests.digestOf(large)).toBeUndefined();
  expect(hashing).toHaveBeenCalledTimes(1);
  expect(digests.absence(large)).toContain("are not hashed");
  // One that grows while it is read ends there.
  expect(await fileDigest.sha256OfDescriptor(large.fd, 3)).toBeUndefined();
});

describe("hashing", () => {
  test("happens off the event loop: another file's cached digest and timers do not wait for it", async () => {
    const digests = executableDigests(LATER);
    const small = opened(file("one"));
    await digests.digestOf(small);
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    let answered = 0;
    let hashed = false;
    const large = digests.digestOf(opened(process.execPath)).then(() => {
      hashed = true;
    });
    while (!hashed) {
      await digests.digestOf(small);
      answered += 1;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await large;
    delay.disable();
    expect(answered).toBeGreaterThan(100);
    // Half of the samples: the machine's other work may delay any single one.
    expect(delay.percentile(50) / 1e6).toBeLessThan(10);
  });

  test("gives the same answer where OpenSSL cannot be called on a thread", async () => {
    const bytes = readFileSync(PYTHON);
    const hash = inSlices(createHash("sha256"));
    await hash.update(bytes, bytes.length);
    expect(hash.digest()).toBe(sha256(bytes));
  });

  test("of many files at a time is done for all of them", async () => {
    const digests = executableDigests(LATER);
    const texts = Array.from({ length: 40 }, (_, index) => `file ${index}`);
    const answers = await Promise.all(texts.map((text) => digests.digestOf(opened(file(text)))));
    expect(answers).toEqual(texts.map((text) => sha256(text)));
  });
});

describe.runIf(process.platform === "linux")("the kernel's part", () => {
  test("an executable that runs cannot be written, nor one be executed that somebody may still write", async () => {
    const copy = join(temporaryFolder(), "sleeping");
    copyFileSync("/bin/sleep", copy);
    const program = start(copy, ["60"]);
    await until(() => readFileSync(`/proc/${program.pid}/cmdline`, "latin1").startsWith(copy), "it runs");
    expect(() => openSync(copy, "r+")).toThrow(expect.objectContaining({ code: "ETXTBSY" }));
    const other = `${copy}.other`;
    copyFileSync("/bin/sleep", other);
    const writer = openSync(other, "r+");
    expect(spawnSync(other, ["0"]).error).toMatchObject({ code: "ETXTBSY" });
    closeSync(writer);
    expect(spawnSync(other, ["0"]).status).toBe(0);
  });

  test.each([
    ["6.10.14", true],
    ["6.11.0", false],
    ["6.11.10-generic", false],
    ["6.11.11", true],
    ["6.12.0-1-amd64", false],
    ["6.12.1", false],
    ["6.12.2", true],
    ["6.12", false],
    ["6.18.44", true],
    ["5.15.0-91-generic", true],
    ["7.11.0", true],
    ["what", false],
  ])("Linux %s keeps writers out of what runs: %s", (release, kept) => {
    expect(writersAreKeptOut(release)).toBe(kept);
  });

  test.runIf(isRoot)("tmpfs is local, and its times are not believed", () => {
    const folder = join(temporaryFolder(), "t");
    mkdirSync(folder);
    expect(spawnSync("mount", ["-t", "tmpfs", "tmpfs", folder]).status).toBe(0);
    atEnd(() => void spawnSync("umount", ["-l", folder]));
    const copy = join(folder, "sleeping");
    copyFileSync("/bin/sleep", copy);
    const onDisk = start("/bin/sleep", ["60"]);
    const inMemory = start(copy, ["60"]);
    const open = (pid: number) => {
      const handle = linux.openProcess({ pid });
      const executable = handle.openExecutable();
      handle.close();
      if (executable !== undefined) closeSync(executable.fd);
      return executable;
    };
    expect(open(inMemory.pid)).toMatchObject({ path: copy, localFilesystem: true, timesShowWrites: false });
    expect(open(onDisk.pid)).toMatchObject({ localFilesystem: true, timesShowWrites: true });
  });
});
