import { Flags } from "@oclif/core";
import { logLine } from "../dashboard/log-stream.js";
import { AgentidCommand } from "./base-command.js";
import { runningDaemon } from "./running-daemon.js";

export default class Logs extends AgentidCommand {
  static override summary = "Print everything that happens, one line an event, until Ctrl-C";
  static override flags = { since: Flags.integer({ summary: "number of the first event", default: 0, min: 0 }) };

  async run(): Promise<void> {
    const { flags } = await this.parse(Logs);
    for await (const event of runningDaemon(flags.project).events({ since: flags.since })) {
      process.stdout.write(`${this.jsonEnabled() ? JSON.stringify(event) : logLine(event)}\n`);
    }
  }
}
