import { spawn } from "node:child_process";
import { flushCompileCache } from "node:module";
import { fileURLToPath } from "node:url";
import type { AgentidEvent } from "../control-api/events.js";
import { type RunningTrustDomain, startTrustDomain } from "../daemon/trust-domain.js";

/** What `agentid dev` can be told. */
export interface ForegroundOptions {
  readonly project: string | undefined;
  readonly plain: boolean;
  readonly json: boolean;
  readonly detached: boolean;
  readonly ephemeral: boolean;
}

/** Starts the trust domain and shows what happens, until it is stopped. */
export async function runInForeground(options: ForegroundOptions): Promise<void> {
  const domain = await startTrustDomain({
    projectDirectory: options.project,
    ephemeral: options.ephemeral,
    environment: process.env,
  });
  stopOnSignals(domain);
  if (options.detached) process.stdout.write(`${JSON.stringify(domain.ready)}\n`);
  else if (options.json) printEvents(domain, (event) => `${JSON.stringify(event)}\n`);
  else if (options.plain || process.stdout.isTTY !== true || process.stdin.isTTY !== true) {
    const { logLine } = await import("../dashboard/log-stream.js");
    printEvents(domain, (event) => `${logLine(event)}\n`);
  } else showDashboard(domain);
  keepCompiledCode();
  await domain.stopped;
}

/** Else it would be kept at the end, when V8 may have dropped what only a start needs, and not at all by a daemon that is killed. */
function keepCompiledCode(): void {
  setTimeout(flushCompileCache, 1_000).unref();
}

/** The first signal stops in order; so does a second one, sooner. */
function stopOnSignals(domain: RunningTrustDomain): void {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => void domain.stop(`stopped by ${signal}`));
  }
}

/** `ready` comes first; what happened on the way to it follows. */
function printEvents(domain: RunningTrustDomain, format: (event: AgentidEvent) => string): void {
  process.stdout.on("error", () => void domain.stop("nobody reads the output any more"));
  process.stdout.write(format(domain.ready));
  domain.subscribe(0, (event) => {
    if (event.sequence !== domain.ready.sequence) process.stdout.write(format(event));
  });
}

/** The dashboard is a process of its own, so that drawing never delays a call. Quitting it stops the trust domain. */
function showDashboard(domain: RunningTrustDomain): void {
  const bin = fileURLToPath(new URL("../../bin/agentid.js", import.meta.url));
  const child = spawn(process.execPath, [bin, "dashboard", "--attached"], {
    stdio: "inherit",
    env: { ...process.env, AGENTID_CONTROL: domain.ready.control },
  });
  if (child.pid !== undefined) domain.admitDashboard(child.pid);
  child.once("exit", () => void domain.stop("the dashboard was closed"));
  child.once("error", (error) => void domain.stop(error.message));
  domain.beforeStop(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      await ended;
    }
  });
}
