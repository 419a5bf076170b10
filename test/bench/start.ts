/** From `agentid dev` typed to the first SVID in a client's hands, beside a bare Node that starts and does nothing. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { credentials, Metadata } from "@grpc/grpc-js";
import { workloadApiSocketPath } from "../../src/platform/directories.js";
import { SpiffeWorkloadAPIClient } from "../../src/workload-api/generated/workload.js";

const ROUNDS = 7;
const bin = join(import.meta.dirname, "..", "..", "bin", "agentid.js");
const project = mkdtempSync(join(tmpdir(), "agentid-bench-"));
writeFileSync(
  join(project, "agentid.yaml"),
  `trustDomain: bench.local\nidentities:\n  bench: { uid: ${process.getuid?.() ?? 0} }\n`,
);
const socket = workloadApiSocketPath(project);

const first: number[] = [];
/** Processor time of the daemon at its first SVID: what a busy machine does not stretch. */
const cpu: number[] = [];
const bare: number[] = [];
for (let round = 0; round < ROUNDS; round += 1) {
  bare.push(await timed(async () => ended(spawn(process.execPath, ["-e", ""]))));
  let daemon: ChildProcess | undefined;
  first.push(
    await timed(async () => {
      daemon = spawn(process.execPath, [bin, "dev", "--json", "--project", project], { stdio: "ignore" });
      while (!(await accepts())) await new Promise((resolve) => setTimeout(resolve, 2));
      await firstSvid();
    }),
  );
  if (daemon) {
    cpu.push(processorTimeMs(daemon.pid ?? 0));
    const gone = ended(daemon);
    daemon.kill("SIGTERM");
    await gone;
  }
}
rmSync(project, { recursive: true, force: true });
const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
process.stdout.write(
  `start   first SVID after ${median(first).toFixed(0)} ms (of ${first.map((ms) => ms.toFixed(0)).join(", ")}), bare node ${median(bare).toFixed(0)} ms; bar 500 ms\n` +
    `        ${median(cpu).toFixed(0)} ms of processor time until then\n`,
);

/** utime and stime of /proc/PID/stat, in ticks of 10 ms. */
function processorTimeMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function timed(step: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await step();
  return performance.now() - started;
}

function ended(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve) => child.once("exit", resolve));
}

function accepts(): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(socket);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
}

function firstSvid(): Promise<void> {
  const client = new SpiffeWorkloadAPIClient(`unix:${socket}`, credentials.createInsecure());
  const metadata = new Metadata();
  metadata.set("workload.spiffe.io", "true");
  return new Promise((resolve, reject) => {
    const stream = client.fetchX509Svid({}, metadata);
    stream.once("error", reject);
    stream.once("data", () => {
      stream.removeAllListeners("error").on("error", () => {});
      stream.cancel();
      client.close();
      resolve();
    });
  });
}
