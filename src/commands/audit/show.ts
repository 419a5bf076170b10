import { Flags } from "@oclif/core";
import { displayText } from "../../control-api/display-text.js";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class AuditShow extends AgentidCommand {
  static override summary = "Show the record, oldest first";
  static override flags = {
    from: Flags.integer({ summary: "number of the first entry", min: 0 }),
    limit: Flags.integer({ summary: "how many", default: 50, min: 1, max: 1000 }),
  };

  async run(): Promise<unknown> {
    const { flags } = await this.parse(AuditShow);
    const client = runningDaemon(flags.project);
    const from = flags.from ?? Math.max(0, (await client.call("status", {})).recordSize - flags.limit);
    const page = await client.call("audit", { from, limit: flags.limit });
    for (const { sequence, time, kind, fields, hash } of page.entries) {
      this.log(
        `${String(sequence).padStart(6)}  ${time}  ${kind.padEnd(16)} ${displayText(JSON.stringify(fields), 200)}  ${hash.slice(0, 12)}`,
      );
    }
    return page;
  }
}
