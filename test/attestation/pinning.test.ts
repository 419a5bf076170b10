import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import {
  compareWithLock,
  describeDifference,
  expectedProgram,
  markFiles,
  pinLaunch,
} from "../../src/attestation/pinning.js";
import { cleanUp, start, temporaryFolder } from "./processes.js";

afterEach(cleanUp);

const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");
const BASH = realpathSync("/bin/bash");
const PATH = "/usr/bin:/bin";

function project(files: Record<string, string>): string {
  const folder = realpathSync(temporaryFolder());
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(folder, path, ".."), { recursive: true });
    writeFileSync(join(folder, path), text);
    if (text.startsWith("#!")) chmodSync(join(folder, path), 0o755);
  }
  return folder;
}

test("pins the executable behind links and each argument that is a file", async () => {
  const workingDirectory = project({ "agents/a.sh": "echo a", "data.json": "{}" });
  symlinkSync("/bin/bash", join(workingDirectory, "shell"));
  const pinned = await pinLaunch({
    argv: ["./shell", "agents/a.sh", "--quiet", "data.json"],
    workingDirectory,
    env: { PATH },
  });
  expect(pinned).toEqual({
    exe: { path: BASH, sha256: sha256(BASH) },
    files: {
      "agents/a.sh": sha256(join(workingDirectory, "agents/a.sh")),
      "data.json": sha256(join(workingDirectory, "data.json")),
    },
  });
});

test.each([
  ["#!/bin/bash -e", ["/bin/bash", "-e", "./run", "x"]],
  ["#!/usr/bin/env bash", ["bash", "./run", "x"]],
  ["#!/usr/bin/env -S bash -e -u", ["bash", "-e", "-u", "./run", "x"]],
])("follows %s to the program and the command line that the kernel shows", async (line, argv) => {
  const workingDirectory = project({ run: `${line}\ntr '\\0' '\\n' < /proc/$$/cmdline` });
  const command = { argv: ["./run", "x"], workingDirectory, env: { PATH } };
  const pinned = await pinLaunch(command);
  expect(pinned.exe.path).toBe(BASH);
  expect(Object.keys(pinned.files)).toEqual(["run"]);
  const files = markFiles(pinned, workingDirectory);
  expect(files).toMatchObject([{ path: join(workingDirectory, "run"), sha256: pinned.files.run }]);
  const expected = await expectedProgram(command, pinned, files);
  expect(expected).toEqual({ exePath: BASH, exeSha256: sha256(BASH), argv, workingDirectory, files });
  const running = start("./run", ["x"], { cwd: workingDirectory, env: { PATH } });
  for (const argument of argv) expect(await running.line()).toBe(argument);
});

test("asks a version manager's shim which program it runs", async () => {
  const workingDirectory = project({ "shims/node": `#!/bin/bash\nexec ${process.execPath} "$@"`, "agent.js": "" });
  const env = { PATH: `${workingDirectory}/shims:${PATH}` };
  const command = { argv: ["node", "agent.js"], workingDirectory, env };
  const pinned = await pinLaunch(command);
  expect(pinned.exe.path).toBe(realpathSync(process.execPath));
  expect((await expectedProgram(command, pinned, [])).argv).toEqual(["node", "agent.js"]);
  writeFileSync(join(workingDirectory, "shims/node"), "#!/bin/bash\necho nonsense");
  await expect(pinLaunch(command)).rejects.toMatchObject({ code: "command-unresolvable" });
});

test("a command that is missing or not executable, and scripts that run each other in a circle", async () => {
  const workingDirectory = project({ plain: "text" });
  const pin = (name: string) => pinLaunch({ argv: [name], workingDirectory, env: { PATH } });
  await expect(pin("no-such-command")).rejects.toMatchObject({ code: "command-not-found" });
  await expect(pin("./plain")).rejects.toMatchObject({ code: "command-not-executable" });
  writeFileSync(join(workingDirectory, "circle"), `#!${workingDirectory}/circle\n`, { mode: 0o755 });
  await expect(pin("./circle")).rejects.toMatchObject({ code: "command-unresolvable" });
});

test("names each difference with the old and the new digest", async () => {
  const workingDirectory = project({ "a.sh": "one", "b.sh": "kept" });
  const command = { argv: ["bash", "a.sh", "b.sh"], workingDirectory, env: { PATH } };
  const before = await pinLaunch(command);
  expect(compareWithLock(before, await pinLaunch(command))).toEqual([]);
  writeFileSync(join(workingDirectory, "a.sh"), "two");
  const after = await pinLaunch(command);
  const differences = compareWithLock(before, after);
  expect(differences).toEqual([{ what: "a.sh", pinned: before.files["a.sh"], found: after.files["a.sh"] }]);
  expect(differences.map(describeDifference)).toEqual([
    `a.sh: pinned ${before.files["a.sh"]}, is now ${after.files["a.sh"]}`,
  ]);
  const otherExe = { ...after, exe: { path: "/bin/dash", sha256: "0".repeat(64) } };
  expect(compareWithLock(after, otherExe).map(({ what }) => what)).toEqual(["exe"]);
});
