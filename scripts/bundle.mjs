#!/usr/bin/env node
// Joins what tsc has written to build/ into the few files of dist/ that users run: resolving and reading two thousand modules, ours and those of
// packages, would take half of the time from `agentid dev` typed to the first SVID. Nothing is renamed or minified: what runs stays readable.

import { existsSync, globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const built = join(root, "build");
const dist = join(root, "dist");

/** Native code and WebAssembly stay packages of their own; ink's development tools are for those who develop ink. */
const NOT_JOINED = ["koffi", "keytar", "react-devtools-core", "@cedar-policy/cedar-wasm"];
/** Started by path: by bin/agentid.js, and as a thread. */
const PROGRAMS = [
  "client/run.js",
  "client/sandbox-entry.js",
  "durable/store-worker.js",
  "policy/condition-worker.js",
  "policy/engines/rego-thread.js",
];
const { commands } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).oclif;
const helpers = commands.globPatterns.filter((pattern) => pattern.startsWith("!")).map((pattern) => pattern.slice(1));
// No commands, but what bin/agentid.js starts.
const ofCommands = [
  "index.js",
  "dev-directly.js",
  ...globSync("**/*.js", { cwd: join(built, "commands") }).filter(isCommand),
];

const program = await bundled({
  entries: [...ofCommands.map((file) => `commands/${file}`), ...PROGRAMS],
  // oclif asks for packages by name that a project may have for itself (ts-node, its plugins); ours has none.
  external: (name) => NOT_JOINED.some((each) => name === each || name.startsWith(`${each}/`)),
});
// A library leaves packages to the program that imports it, which may have them already.
await bundled({ entries: ["client/spiffe/index.js"], external: (name) => !/^[./]/.test(name) });
writeFileSync(join(dist, "THIRD-PARTY-NOTICES.txt"), notices(packagesOf(program)));

function isCommand(file) {
  return !helpers.includes(file);
}

/** Chunks lie as deep below the root as `commands/` and `client/`, so that `../../templates` means the same in all of them. */
async function bundled({ entries, external }) {
  const there = entries.filter((entry) => existsSync(join(built, entry)));
  if (there.length === 0) return [];
  const bundle = await rolldown({
    input: Object.fromEntries(there.map((entry) => [entry.slice(0, -".js".length), join(built, entry)])),
    platform: "node",
    external,
    onLog(level, log) {
      if (level === "warn") throw new Error(log.message);
    },
  });
  mkdirSync(dist, { recursive: true });
  const { output } = await bundle.write({
    dir: dist,
    entryFileNames: "[name].js",
    chunkFileNames: "chunks/[name]-[hash].js",
  });
  return output;
}

/** The folders of the packages of which a module is in the program. */
function packagesOf(output) {
  const modules = output.flatMap((chunk) => chunk.moduleIds ?? []);
  const folders = modules.map((id) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(id)?.[0]);
  return [...new Set(folders.filter((folder) => folder !== undefined))].sort();
}

/** Their licences ask to be handed on with every copy. */
function notices(folders) {
  const each = folders.map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const [file] = globSync("{LICEN[CS]E,licen[cs]e,COPYING}*", { cwd: folder });
    if (license === undefined && file === undefined) throw new Error(`${relative(root, folder)} names no licence`);
    const text = file === undefined ? "" : `\n\n${readFileSync(join(folder, file), "utf8").trim()}`;
    return `${name} ${version} (${license ?? "see below"})${text}\n`;
  });
  return `agentid's program contains these packages.\n\n${each.join(`\n${"-".repeat(80)}\n\n`)}`;
}
