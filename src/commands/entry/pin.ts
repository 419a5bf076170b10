import { Args } from "@oclif/core";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class EntryPin extends AgentidCommand {
  static override summary =
    "Accept what an identity's executable and files are now: write their digests to agentid.lock";
  static override args = { name: Args.string({ required: true, description: "identity" }) };
  static override examples = ["<%= config.bin %> entry pin billing"];

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(EntryPin);
    const done = await runningDaemon(flags.project).call("pin", { name: args.name });
    for (const change of done.changes) this.log(`pinned  ${change}`);
    return done;
  }
}
