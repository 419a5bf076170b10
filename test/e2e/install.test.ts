import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nodeOf } from "../launch/nodes.js";
import { bin, type Finished, makeProject, run } from "./agentid.js";

const root = dirname(dirname(bin));
const cache = join(root, ".cache");
const INSTALL_DEADLINE_MS = 240_000;

/** The machine's npm, run by the Node of these tests: no engine warning, and current rules. */
const npm = execFileSync("sh", ["-c", 'readlink -f "$(command -v npm)"'], { encoding: "utf8" }).trim();

const nodes = [22, 24, 26].map((major) => ({ major, node: nodeOf(major) }));
const oldNode = nodeOf(20);
for (const { major } of [...nodes, { major: 20, node: oldNode }].filter(({ node }) => node === undefined)) {
  process.stderr.write(`install: Node ${major} cannot be fetched; what needs it is SKIPPED\n`);
}

let packed: string[] = [];
let workshop = "";
/** Why there is no installation, or undefined. */
let notInstalled: string | undefined;

beforeAll(() => {
  mkdirSync(cache, { recursive: true });
  workshop = mkdtempSync(join(cache, "install-"));
  chmodSync(workshop, 0o755);
  const [made] = JSON.parse(npmRun(["pack", "--json", "--ignore-scripts", "--pack-destination", workshop], root)) as {
    filename: string;
    files: { path: string }[];
  }[];
  packed = made?.files.map(({ path }) => path) ?? [];
  const prefix = join(workshop, "prefix");
  mkdirSync(prefix);
  try {
    npmRun(
      ["install", "--global", "--prefix", prefix, "--prefer-offline", join(workshop, made?.filename ?? "")],
      prefix,
    );
  } catch (thrown) {
    notInstalled = thrown instanceof Error ? thrown.message : String(thrown);
    if (!/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT/.test(notInstalled)) throw thrown;
    process.stderr.write("install: the registry cannot be reached; the installed package is SKIPPED\n");
  }
}, INSTALL_DEADLINE_MS);

afterAll(() => rmSync(workshop, { recursive: true, force: true }));

function npmRun(args: readonly string[], cwd: string): string {
  return execFileSync(process.execPath, [npm, ...args, "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd,
    encoding: "utf8",
    stdio: "pipe",
    timeout: INSTALL_DEADLINE_MS,
  });
}

/** `agentid …` as a user has it after `npm install -g`, with this Node on the PATH. */
function installed(node: string, args: readonly string[], cwd: string): Promise<Finished> {
  const PATH = [join(workshop, "prefix", "bin"), dirname(node), "/usr/bin", "/bin"].join(":");
  return run("agentid", args, { cwd, env: { PATH } });
}

describe("the packed tarball", () => {
  it("holds what init and demo need, and nothing of the workshop", () => {
    expect(packed).toEqual(
      expect.arrayContaining([
        ...["package.json", "README.md", "LICENSE", "bin/agentid.js", "dist/commands/demo.js", "dist/client/run.js"],
        ...["dist/client/spiffe/index.js", "dist/client/spiffe/index.d.ts", "dist/THIRD-PARTY-NOTICES.txt"],
        ...["templates/agentid.schema.json", "templates/demo/agentid.yaml", "templates/demo/policies/shop.yaml"],
        ...["templates/mcp-server/agents/billing.py", "templates/minimal/agentid.yaml"],
        ...["agentid.yaml", "entities.yaml", "policies/on-behalf-of.yaml", "policies/on-behalf-of.test.yaml"].map(
          (name) => `templates/policies/on-behalf-of/${name}`,
        ),
      ]),
    );
    expect(packed.filter((path) => !/^(bin|dist|templates)\//.test(path)).sort()).toEqual(
      ["LICENSE", "README.md", "oclif.manifest.json", "package.json"].filter((name) => existsSync(join(root, name))),
    );
    expect(packed.filter((path) => path.startsWith("dist/."))).toEqual([]);
    const sources = packed.filter((path) => /\.tsx?$/.test(path) && !path.endsWith(".d.ts"));
    const tests = packed.filter((path) => /\.test\.|^(test|scripts)\//.test(path) && !path.endsWith(".test.yaml"));
    expect([...sources, ...tests]).toEqual([]);
  });

  it("names no Node of its own and no install script", () => {
    const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
      dependencies: Record<string, string>;
      scripts: Record<string, string>;
    };
    expect(Object.keys(manifest.dependencies).filter((name) => /^node(-(bin|linux|darwin|win)|$)/.test(name))).toEqual(
      [],
    );
    expect(Object.keys(manifest.scripts).filter((name) => /install/.test(name))).toEqual([]);
  });
});

describe("the installed package", () => {
  it.for(nodes)("runs `agentid ci -- node -e ''` under Node $major", async ({ major, node }, { skip }) => {
    if (node === undefined || notInstalled !== undefined) return skip();
    const version = await run(node, ["-p", "process.version"], { cwd: root });
    expect(version.stdout).toMatch(new RegExp(`^v${major}\\.`));
    const project = makeProject({});
    expect(await installed(node, ["ci", "--", "node", "-e", ""], project)).toMatchObject({
      code: 0,
      stdout: "",
      stderr: "",
    });
    const failing = await installed(node, ["ci", "--", "node", "-e", "process.exit(9)"], project);
    expect(failing.code).toBe(9);
    expect(readdirSync(project)).toEqual([]);
  });

  it("writes a template", async ({ skip }) => {
    const node = nodes.find((each) => each.node !== undefined)?.node;
    if (node === undefined || notInstalled !== undefined) return skip();
    const project = makeProject({});
    expect((await installed(node, ["init", "--template", "mcp-server"], project)).code).toBe(0);
    expect((await installed(node, ["policy", "test"], project)).stdout).toContain("4 passed, 0 failed");
  });

  it("says in one line what is needed under Node 20", async ({ skip }) => {
    if (oldNode === undefined || notInstalled !== undefined) return skip();
    const done = await installed(oldNode, ["ci", "--", "node", "-e", ""], makeProject({}));
    expect(done).toMatchObject({ code: 1, stdout: "" });
    expect(done.stderr).toMatch(/^agentid needs Node\.js 22\.22 or newer \(this is 20\.[\d.]+\): https:\/\/\S+\n$/);
  });
});
