import { Args } from "@oclif/core";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class AuthorityRevoke extends AgentidCommand {
  static override summary = "Take an old authority out of the bundle: nothing that it has signed is believed any more";
  static override args = { key: Args.string({ required: true, description: "the beginning of one of its key ids" }) };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(AuthorityRevoke);
    const revoked = await runningDaemon(flags.project).call("revokeAuthority", { keyId: args.key });
    this.log(`revoked   ${revoked.keyId}`);
    return revoked;
  }
}
