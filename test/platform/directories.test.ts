import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import {
  controlSocketPath,
  findProjectDirectory,
  openRuntimeDirectory,
  openStateDirectory,
  runtimeDirectoryOf,
  socketPathIn,
  workloadApiSocketPath,
} from "../../src/platform/directories.js";
import { cleanUp, temporaryFolder } from "../attestation/processes.js";

afterEach(cleanUp);
const unsafe = expect.objectContaining({ code: "directory-unsafe" });
const modeOf = (path: string): number => statSync(path).mode & 0o777;

describe("the project", () => {
  test("is the nearest folder upwards with agentid.yaml", () => {
    const outer = realpathSync(temporaryFolder());
    const inner = join(outer, "a/b");
    mkdirSync(inner, { recursive: true });
    writeFileSync(join(outer, "agentid.yaml"), "");
    expect(findProjectDirectory(inner)).toBe(outer);
    writeFileSync(join(outer, "a/agentid.yaml"), "");
    expect(findProjectDirectory(inner)).toBe(join(outer, "a"));
  });
});

describe("the state folder", () => {
  test("is private and ignored by git, whatever the umask", () => {
    const previous = process.umask(0);
    try {
      const directory = openStateDirectory(temporaryFolder());
      expect(modeOf(directory)).toBe(0o700);
      expect(readFileSync(join(directory, ".gitignore"), "utf8")).toBe("*\n");
    } finally {
      process.umask(previous);
    }
  });

  test("opens again, but not once others may enter it", () => {
    const project = temporaryFolder();
    const directory = openStateDirectory(project);
    expect(openStateDirectory(project)).toBe(directory);
    chmodSync(directory, 0o750);
    expect(() => openStateDirectory(project)).toThrow(unsafe);
  });

  test("is never a link or a file", () => {
    const elsewhere = temporaryFolder();
    const linked = temporaryFolder();
    symlinkSync(elsewhere, join(linked, ".agentid"));
    expect(() => openStateDirectory(linked)).toThrow(unsafe);
    expect(existsSync(join(elsewhere, ".gitignore"))).toBe(false);
    const filed = temporaryFolder();
    writeFileSync(join(filed, ".agentid"), "");
    expect(() => openStateDirectory(filed)).toThrow(unsafe);
  });

  test.runIf(process.getuid?.() === 0)("is never somebody else's", () => {
    const project = temporaryFolder();
    chownSync(openStateDirectory(project), 65534, 65534);
    expect(() => openStateDirectory(project)).toThrow(unsafe);
  });
});

describe("the sockets' folder", () => {
  test("is one per project, under XDG_RUNTIME_DIR where that is ours", () => {
    const xdg = temporaryFolder();
    const [one, other] = [temporaryFolder(), temporaryFolder()];
    const environment = { XDG_RUNTIME_DIR: xdg };
    const directory = openRuntimeDirectory(one, environment);
    expect(directory.startsWith(join(xdg, "agentid/"))).toBe(true);
    expect(modeOf(directory)).toBe(0o700);
    expect(runtimeDirectoryOf(other, environment)).not.toBe(directory);
    expect(controlSocketPath(one, environment)).toBe(join(directory, "control.sock"));
    expect(workloadApiSocketPath(one, environment)).toBe(join(directory, "workload.sock"));
  });

  test("is agentid-UID in the temporary folder when XDG_RUNTIME_DIR is missing, open to others, or relative", () => {
    const open = temporaryFolder();
    chmodSync(open, 0o777);
    const TMPDIR = temporaryFolder();
    const project = temporaryFolder();
    for (const XDG_RUNTIME_DIR of [undefined, open, "relative", "/nowhere"]) {
      expect(runtimeDirectoryOf(project, { XDG_RUNTIME_DIR, TMPDIR })).toMatch(
        `${TMPDIR}/agentid-${process.getuid?.()}/`,
      );
    }
  });

  test("refuses a link that somebody planted", () => {
    const TMPDIR = temporaryFolder();
    symlinkSync(temporaryFolder(), join(TMPDIR, `agentid-${process.getuid?.()}`));
    expect(() => openRuntimeDirectory(temporaryFolder(), { TMPDIR })).toThrow(unsafe);
  });

  test("leaves room for a socket's name however long the temporary folder's is", () => {
    const TMPDIR = join(temporaryFolder(), "x".repeat(90));
    mkdirSync(TMPDIR);
    const path = controlSocketPath(temporaryFolder(), { TMPDIR });
    expect(Buffer.byteLength(path)).toBeLessThanOrEqual(107);
    expect(Buffer.byteLength(socketPathIn("/tmp/agentid-0/0123456789abcdef", "n".repeat(200)))).toBeLessThanOrEqual(
      107,
    );
    expect(socketPathIn("/tmp/a", "b")).toBe("/tmp/a/b.sock");
  });
});
