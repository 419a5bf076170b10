import { Flags } from "@oclif/core";
import { findControlSocket } from "../client/control-socket.js";
import { AgentidCommand, EXIT } from "./base-command.js";

export default class Dashboard extends AgentidCommand {
  static override summary = "Watch a running trust domain: calls, denials, certificates, problems";
  static override description =
    "Without a terminal, or with --plain, a log stream; with --json, one JSON event a line. Press ? in it for the keys.";
  static override flags = {
    plain: Flags.boolean({ summary: "a log stream instead of the screen" }),
    attached: Flags.boolean({ hidden: true, summary: "for `agentid dev`, whose process group and life it shares" }),
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(Dashboard);
    const socketPath = findControlSocket(flags.project, process.env);
    const { runDashboard } = await import("../dashboard/index.js");
    const outcome = await runDashboard({
      socketPath,
      stdin: process.stdin,
      stdout: process.stdout,
      plain: flags.plain,
      json: this.jsonEnabled(),
      // Ctrl-Z stops the whole process group: under `agentid dev` that would be the daemon too.
      suspendable: !flags.attached,
      endsWithDaemon: flags.attached,
    });
    if (outcome === "daemon-gone") process.exitCode = EXIT.notRunning;
  }
}
