import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nodeOf } from "../launch/nodes.js";

const root = resolve(import.meta.dirname, "../..");
/** The oldest Node that a machine may have: the clone's own does the work. */
const machineNode = nodeOf(20);
if (machineNode === undefined) process.stderr.write("bootstrap: Node 20 cannot be fetched; its tests are SKIPPED\n");

const work = mkdtempSync(join(root, ".cache", "clone-"));
afterAll(() => rmSync(work, { recursive: true, force: true }));

interface Done {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function onMachineNode(
  command: string,
  args: readonly string[],
  cwd: string,
  timeout: number,
  more: NodeJS.ProcessEnv = {},
): Done {
  const own = Object.entries(process.env).filter(([name]) => !/^(npm_|AGENTID_|VITEST|NODE_OPTIONS)/.test(name));
  const PATH = [dirname(machineNode ?? ""), "/usr/local/bin", "/usr/bin", "/bin"].join(":");
  const env = { ...Object.fromEntries(own), PATH, NO_COLOR: "1", ...more };
  const done = spawnSync(command, args, { cwd, env, encoding: "utf8", timeout });
  // What npm says of the configuration in this user's home is not about the clone.
  const stderr = done.stderr.replaceAll(/^npm warn Unknown user config .*\n/gm, "");
  return { status: done.status, stdout: done.stdout, stderr };
}

describe.skipIf(machineNode === undefined)("bootstrap, started with Node 20", () => {
  const clone = join(work, "small");
  const bootstrap = (task: string) => onMachineNode("node", ["scripts/bootstrap.mjs", task], clone, 60_000);

  /** A clone with little in it: what is installed is linked from here, what is built is one file. */
  beforeAll(() => {
    mkdirSync(join(clone, "node_modules"), { recursive: true });
    mkdirSync(join(clone, "src", "commands"), { recursive: true });
    for (const name of ["bootstrap.mjs", "bundle.mjs"])
      cpSync(join(root, "scripts", name), join(clone, "scripts", name));
    symlinkSync(join(root, "scripts/node"), join(clone, "scripts/node"));
    for (const name of ["package.json", "package-lock.json", "tsconfig.json"])
      cpSync(join(root, name), join(clone, name));
    for (const name of readdirSync(join(root, "node_modules")).filter((each) => !each.startsWith(".agentid"))) {
      symlinkSync(join(root, "node_modules", name), join(clone, "node_modules", name));
    }
    const installed = createHash("sha256");
    for (const name of ["package-lock.json", "package.json"]) installed.update(readFileSync(join(clone, name)));
    writeFileSync(join(clone, "node_modules", ".agentid-installed"), installed.digest("hex"));
    writeFileSync(join(clone, "src", "commands", "index.ts"), "export const runs: string = process.version;\n");
  });

  it("names the tasks there are when asked for another, and exits 2", () => {
    const done = bootstrap("nothing");
    expect(done.status).toBe(2);
    expect(done.stderr).toMatch(/^bootstrap: no task "nothing"; there are setup, start, test, .*\n$/);
  });

  it("builds what is not built, nothing that is current, and again what changed", () => {
    expect(bootstrap("setup")).toMatchObject({ status: 0, stdout: "", stderr: "agentid: building\n" });
    expect(bootstrap("setup")).toMatchObject({ status: 0, stdout: "", stderr: "" });
    appendFileSync(join(clone, "src/commands/index.ts"), "export const more: number = 1;\n");
    expect(bootstrap("setup")).toMatchObject({ status: 0, stdout: "", stderr: "agentid: building\n" });
    expect(readFileSync(join(clone, "dist/commands/index.js"), "utf8")).toContain("more");
  });

  it("a build that fails is not taken for one: it exits 1 and builds again", () => {
    const file = join(clone, "src/commands/index.ts");
    const good = readFileSync(file);
    writeFileSync(file, 'export const wrong: number = "text";\n');
    for (let again = 0; again < 2; again += 1) {
      const done = bootstrap("setup");
      expect(done.status).toBe(1);
      expect(done.stderr).toContain("agentid: the build failed");
    }
    writeFileSync(file, good);
    expect(bootstrap("setup").status).toBe(0);
  });
});

/**
 * Stands where npm does, so that it needs no network and can be interrupted at will. It writes down whether there was a node_modules when it was called,
 * then does what it is told: all packages, linked from here, or less.
 */
const FAKE_NPM = `
import { appendFileSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
const [how, from] = process.env.FAKE_NPM.split(" ");
appendFileSync("called", (existsSync("node_modules") ? "again" : "anew") + " " + process.argv[2] + "\\n");
mkdirSync("node_modules", { recursive: true });
if (how === "killed") {
  mkdirSync("node_modules/typescript");
  writeFileSync("node_modules/typescript/package.json", "{");
  process.kill(process.ppid, "SIGKILL");
  process.exit(1);
}
if (how !== "nothing") {
  for (const name of readdirSync(from)) {
    if (!name.startsWith(".") && !existsSync(join("node_modules", name))) symlinkSync(join(from, name), join("node_modules", name));
  }
}
const integrity = how === "other" ? "sha512-other" : "sha512-locked";
writeFileSync("node_modules/.package-lock.json", JSON.stringify({ packages: { "node_modules/typescript": { integrity } } }));
`;

describe.skipIf(machineNode === undefined)("an installation", () => {
  const clone = join(work, "interrupted");
  const called = () => readFileSync(join(clone, "called"), "utf8").trim().split("\n");
  const install = (how: "whole" | "killed" | "nothing" | "other") =>
    onMachineNode("node", ["scripts/bootstrap.mjs", "setup"], clone, 60_000, {
      npm_execpath: join(clone, "npm.js"),
      FAKE_NPM: `${how} ${join(root, "node_modules")}`,
    });
  const lock = (version: string) => {
    const packages = { "": { version }, "node_modules/typescript": { integrity: "sha512-locked" } };
    writeFileSync(join(clone, "package-lock.json"), JSON.stringify({ packages }));
  };

  beforeAll(() => {
    mkdirSync(join(clone, "src", "commands"), { recursive: true });
    for (const name of ["bootstrap.mjs", "bundle.mjs"])
      cpSync(join(root, "scripts", name), join(clone, "scripts", name));
    symlinkSync(join(root, "scripts/node"), join(clone, "scripts/node"));
    for (const name of ["package.json", "tsconfig.json"]) cpSync(join(root, name), join(clone, name));
    writeFileSync(join(clone, "npm.js"), FAKE_NPM);
    writeFileSync(join(clone, "src", "commands", "index.ts"), "export const runs: string = process.version;\n");
    lock("1");
  });

  it("that was interrupted is begun anew, not taken up where it broke off, and once it is whole not done again", () => {
    expect(install("killed").status).not.toBe(0);
    const half = join(clone, "node_modules", "typescript", "package.json");
    expect(readFileSync(half, "utf8")).toBe("{");
    const done = install("whole");
    expect(done).toMatchObject({
      status: 0,
      stderr: "agentid: installing dependencies (once, as locked)\nagentid: building\n",
    });
    expect(readFileSync(half, "utf8")).toContain('"typescript"');
    expect(called()).toEqual(["anew install", "anew install"]);
    expect(install("whole")).toMatchObject({ status: 0, stderr: "" });
    expect(called()).toHaveLength(2);
    // The control: what is whole is only brought up to date when the lock changes.
    lock("2");
    expect(install("whole").status).toBe(0);
    expect(called().slice(2)).toEqual(["again install"]);
  });

  it.each([
    ["nothing", /npm has not installed node_modules\/typescript/],
    ["other", /not what package-lock\.json pins: node_modules\/typescript/],
  ] as const)("with %s in it is not taken for one, and is begun anew", (how, said) => {
    rmSync(join(clone, "node_modules"), { recursive: true, force: true });
    rmSync(join(clone, "called"), { force: true });
    const done = install(how);
    expect(done.status).toBe(1);
    expect(done.stderr).toMatch(said);
    expect(install("whole").status).toBe(0);
    expect(called()).toEqual(["anew install", "anew install"]);
  });
});

/** Minutes, and the network: on demand. */
describe.skipIf(machineNode === undefined || process.env.AGENTID_TEST_FRESH_CLONE === undefined)(
  "a fresh clone",
  () => {
    it("`npm start` on a machine with Node 20 installs, builds and plays the demonstration, without a warning", () => {
      const clone = join(work, "fresh");
      expect(spawnSync("git", ["clone", "--quiet", root, clone]).status).toBe(0);
      const done = onMachineNode("npm", ["start"], clone, 600_000);
      expect(done.stderr).not.toMatch(/npm (warn|error)|EBADENGINE|deprecated/i);
      expect(done.status).toBe(0);
      expect(done.stdout).toContain("9 of 9 scenes");
      const again = onMachineNode("npm", ["start"], clone, 600_000);
      expect({ status: again.status, stderr: again.stderr }).toEqual({ status: 0, stderr: "" });
    }, 1_200_000);
  },
);
