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

function onMachineNode(command: string, args: readonly string[], cwd: string, timeout: number): Done {
  const own = Object.entries(process.env).filter(([name]) => !/^(npm_|AGENTID_|VITEST|NODE_OPTIONS)/.test(name));
  const PATH = [dirname(machineNode ?? ""), "/usr/local/bin", "/usr/bin", "/bin"].join(":");
  const env = { ...Object.fromEntries(own), PATH, NO_COLOR: "1" };
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
