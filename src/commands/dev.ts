import { Flags } from "@oclif/core";
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
    const { runInForeground } = await import("./foreground.js");
    await runInForeground({
      project: flags.project,
      plain: flags.plain === true,
      json: this.jsonEnabled(),
      detached: flags.detached === true,
      ephemeral: flags.ephemeral === true,
    });
  }
}
