import { Args } from "@oclif/core";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class AuthorityTaint extends AgentidCommand {
  static override summary = "Distrust an old authority: what it has signed is replaced at once";
  static override args = { key: Args.string({ required: true, description: "the beginning of one of its key ids" }) };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(AuthorityTaint);
    const tainted = await runningDaemon(flags.project).call("taintAuthority", { keyId: args.key });
    this.log(`tainted   ${tainted.keyId}   next: agentid authority revoke ${tainted.keyId.slice(0, 12)}`);
    return tainted;
  }
}
