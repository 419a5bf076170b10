import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Flags } from "@oclif/core";
import type { AgentidEvent } from "../control-api/events.js";
import type { RunningTrustDomain } from "../daemon/trust-domain.js";
import { AgentidCommand } from "./base-command.js";

export default class Dev extends AgentidCommand {
  static override summary = "Start the trust domain in the foreground, with the dashboard";
  static override description =
    "Without a terminal, or with --plain, the dashboard is a log stream; with --json it is one JSON event a line, the first of which is `ready`.";
  static override flags = {
    plain: Flags.boolean({ summary: "a log stream instead of the dashboard" }),
    detached: Flags.boolean({ hidden: true, summary: "for `agentid up`: say that it is ready, then nothing more" }),
    ephemeral: Flags.boolean({ summary: "keep nothing on disk: keys, certificates and record live in memory" }),
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(Dev);
    const { startTrustDomain } = await import("../daemon/trust-domain.js");
    const domain = await startTrustDomain({
      projectDirectory: flags.project,
      ephemeral: flags.ephemeral === true,
      environment: process.env,
    });
    stopOnSignals(domain);
    if (flags.detached) process.stdout.write(`${JSON.stringify(domain.ready)}\n`);
    else if (this.jsonEnabled()) printEvents(domain, (event) => `${JSON.stringify(event)}\n`);
    else if (flags.plain || process.stdout.isTTY !== true || process.stdin.isTTY !== true) {
      const { logLine } = await import("../dashboard/log-stream.js");
      printEvents(domain, (event) => `${logLine(event)}\n`);
    } else showDashboard(domain);
    await domain.stopped;
  }
}

/** The first signal stops in order; so does a second one, sooner. */
export function stopOnSignals(domain: RunningTrustDomain): void {
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
