import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Lock } from "../../src/config/config.js";
import { ConfigError } from "../../src/config/config-error.js";
import { EMPTY_LOCK, formatLock, readLock, writeLock } from "../../src/config/lock-file.js";
import { project } from "./project.js";

const A = "a".repeat(64);
const B = "b".repeat(64);
const LOCK: Lock = {
  identities: {
    "agents/planner": { exe: { path: "/usr/bin/node", sha256: A }, files: {} },
    "agents/billing": {
      exe: { path: "/usr/bin/python3.11", sha256: B },
      files: { "agents/zulu.py": A, "agents/billing.py": B, "a: b # c": A },
    },
  },
};

describe("agentid.lock", () => {
  it("comes back as it was written, whole, with nothing left beside it", async () => {
    const directory = await project();
    const file = join(directory, "agentid.lock");
    await writeLock(file, EMPTY_LOCK);
    await writeLock(file, LOCK);
    expect(await readLock(file)).toEqual(LOCK);
    expect(await readdir(directory)).toEqual(["agentid.lock"]);
    expect((await stat(file)).mode & 0o022).toBe(0);
  });

  it("is the same bytes whatever the order of the pins, and says what it is", () => {
    const reversed = { identities: Object.fromEntries(Object.entries(LOCK.identities).reverse()) };
    expect(formatLock(reversed)).toBe(formatLock(LOCK));
    expect(formatLock(LOCK)).toMatch(/^# agentid\.lock pins/);
    expect(formatLock(LOCK).indexOf("billing")).toBeLessThan(formatLock(LOCK).indexOf("planner"));
  });

  it("is empty where there is none", async () => {
    expect(await readLock(join(await project(), "agentid.lock"))).toEqual({ identities: {} });
  });

  it("keeps digests of digits only as text", async () => {
    const digits = "1".repeat(64);
    const file = join(await project(), "agentid.lock");
    await writeLock(file, { identities: { a: { exe: { path: "/x", sha256: digits }, files: {} } } });
    expect((await readLock(file)).identities.a?.exe.sha256).toBe(digits);
  });

  it("that cannot be written leaves the old one", async () => {
    const directory = await project({ "agentid.lock": formatLock(LOCK) });
    await expect(writeLock(join(directory, "missing/agentid.lock"), EMPTY_LOCK)).rejects.toMatchObject({
      code: "ENOENT",
    });
    expect(await readFile(join(directory, "agentid.lock"), "utf8")).toBe(formatLock(LOCK));
  });

  it.each([
    ["not YAML", "{", /agentid.lock:1/],
    ["another version", "version: 2\nidentities: {}\n", /agentid.lock:1:10 {2}version: must be 1/],
    ["no identities", "version: 1\n", /identities: is missing/],
    ["an unknown key", "version: 1\nidentities: {}\nidentites: {}\n", /did you mean "identities"/],
    [
      "a bad digest",
      `version: 1\nidentities: { a: { exe: { path: /x, sha256: ABC }, files: {} } }\n`,
      /64 lower-case hex/,
    ],
    ["a bare name", `version: 1\nidentities: { a: { exe: { path: x, sha256: ${A} }, files: {} } }\n`, /absolute path/],
    [
      "a bad file digest",
      `version: 1\nidentities: { a: { exe: { path: /x, sha256: ${A} }, files: { f: z } } }\n`,
      /files.f: /,
    ],
    ["a bad name", `version: 1\nidentities: { /a: { exe: { path: /x, sha256: ${A} }, files: {} } }\n`, /leading slash/],
    ["a name twice", "version: 1\nidentities: {}\nidentities: {}\n", /unique/],
  ])("with %s is refused", async (_, text, said) => {
    const file = join(await project(), "agentid.lock");
    await writeFile(file, text);
    const thrown = await readLock(file).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(ConfigError);
    expect(thrown).toMatchObject({ code: "config-invalid", message: expect.stringMatching(said) });
  });
});
