import { Args } from "@oclif/core";
import { AgentidCommand } from "./base-command.js";
import { runningDaemon } from "./running-daemon.js";

export default class Rotate extends AgentidCommand {
  static override summary = "Replace certificates now: one identity's, or all";
  static override args = { name: Args.string({ description: "identity (default: every identity)" }) };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(Rotate);
    const done = await runningDaemon(flags.project).call("rotate", args.name === undefined ? {} : { name: args.name });
    for (const name of done.rotated) this.log(`replaced  ${name}`);
    return done;
  }
}
