/**
 * From `agentid run` typed to the command's first line: as it is, with `--sandbox`, beside the command alone, an empty Node, and bubblewrap around the command.
 * In turns, so that a busy machine is busy for all of them; processor time is that of the processes from the command line to the command.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { libc } from "../../src/platform/libc.js";
import { probeArguments } from "../../src/sandbox/bubblewrap.js";

const ROUNDS = 15;
const bin = join(import.meta.dirname, "..", "..", "bin", "agentid.js");
const COMMAND = ["/bin/sh", "-c", "echo up"];
const BARE_SANDBOX = ["bwrap", ...probeArguments(true).slice(0, -1), ...COMMAND];

const project = mkdtempSync(join(tmpdir(), "agentid-bench-"));
mkdirSync(join(project, "policies"));
writeFileSync(
  join(project, "agentid.yaml"),
  `trustDomain: bench.local\nidentities:\n  agents/bench: { launch: ${JSON.stringify(COMMAND)} }\n`,
);
const environment = { ...process.env, HOME: project };
const daemon = spawn(process.execPath, [bin, "dev", "--json", "--project", project], {
  env: environment,
  stdio: ["ignore", "pipe", "inherit"],
});
await once(createInterface({ input: daemon.stdout }), "line");

const run = [process.execPath, bin, "run"];
const asked = ["agents/bench", "--", ...COMMAND];
const ways: readonly (readonly [name: string, command: readonly string[]])[] = [
  ["the command alone", COMMAND],
  ["an empty Node", [process.execPath, "-e", "console.log('up')"]],
  ["agentid run", [...run, ...asked]],
  ["bubblewrap, everything shown", BARE_SANDBOX],
  ["agentid run --sandbox", [...run, "--sandbox", ...asked]],
];
try {
  const possible = spawnSync(BARE_SANDBOX[0] ?? "", BARE_SANDBOX.slice(1)).status === 0;
  if (!possible) process.stdout.write("launch  SKIPPED with sandboxes: bubblewrap makes none here\n");
  const chosen = ways
    .filter(([, [first]]) => possible || first !== "bwrap")
    .filter((way) => possible || way !== ways[4]);
  const taken = chosen.map(([name, command]) => ({ name, command, wall: [] as number[], cpu: [] as number[] }));
  for (let round = 0; round <= ROUNDS; round += 1) {
    for (const way of taken) {
      const { wall, cpu } = await firstLine(way.command);
      // The first of each compiles and fills caches.
      if (round === 0) continue;
      way.wall.push(wall);
      way.cpu.push(cpu);
    }
  }
  for (const { name, wall, cpu } of taken) {
    process.stdout.write(
      `launch  ${name.padEnd(29)} first line after ${median(wall).toFixed(0).padStart(4)} ms, ${median(cpu).toFixed(0).padStart(4)} ms of processor time\n`,
    );
  }
} finally {
  daemon.kill("SIGTERM");
  await once(daemon, "exit");
  if (existsSync(project)) rmSync(project, { recursive: true, force: true });
}

async function firstLine([command = "", ...args]: readonly string[]): Promise<{ wall: number; cpu: number }> {
  const [before, started] = [childrenMs(), performance.now()];
  const child = spawn(command, args, { cwd: project, env: environment, stdio: ["ignore", "pipe", "inherit"] });
  const exit = once(child, "exit");
  const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  const wall = performance.now() - started;
  if (line !== "up") throw new Error(`${command} said ${line}`);
  await exit;
  return { wall, cpu: childrenMs() - before };
}

/** Processor time of all children that have ended, theirs included. */
function childrenMs(): number {
  const usage = Buffer.alloc(144);
  const RUSAGE_CHILDREN = -1;
  if (libc.func("int getrusage(int, void *)")(RUSAGE_CHILDREN, usage) !== 0) throw new Error("getrusage");
  const at = (offset: number): number =>
    Number(usage.readBigInt64LE(offset)) * 1000 + Number(usage.readBigInt64LE(offset + 8)) / 1000;
  return at(0) + at(16);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
