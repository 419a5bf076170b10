import { Args } from "@oclif/core";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class BundleDelete extends AgentidCommand {
  static override summary = "Stop trusting another trust domain; its open connections end";
  static override args = { "trust-domain": Args.string({ description: "its name", required: true }) };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(BundleDelete);
    return await runningDaemon(flags.project).call("deleteBundle", { trustDomain: args["trust-domain"] });
  }
}
