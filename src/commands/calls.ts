import { Flags } from "@oclif/core";
import type { CallDecidedEvent } from "../control-api/events.js";
import { AgentidCommand } from "./base-command.js";
import { runningDaemon } from "./running-daemon.js";

export default class Calls extends AgentidCommand {
  static override summary = "List the calls that were decided, newest last";
  static override flags = {
    follow: Flags.boolean({ char: "f", summary: "go on with new ones" }),
    denied: Flags.boolean({ summary: "only denials" }),
  };

  async run(): Promise<readonly CallDecidedEvent[]> {
    const { flags } = await this.parse(Calls);
    const { logLine } = await import("../dashboard/log-stream.js");
    const client = runningDaemon(flags.project);
    const newest = (await client.call("status", {})).nextEvent;
    const calls: CallDecidedEvent[] = [];
    if (newest === 0 && !flags.follow) return calls;
    for await (const event of client.events({ since: 0 })) {
      if (event.event === "call" && (!flags.denied || event.verdict === "DENY")) {
        if (!flags.follow) calls.push(event);
        if (!this.jsonEnabled()) this.log(logLine(event));
        else if (flags.follow) process.stdout.write(`${JSON.stringify(event)}\n`);
      }
      if (!flags.follow && event.sequence >= newest - 1) break;
    }
    return calls;
  }
}
