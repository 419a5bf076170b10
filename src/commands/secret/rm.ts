import { Args } from "@oclif/core";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class SecretRemove extends AgentidCommand {
  static override summary = "Take a secret out of the keychain";
  static override args = { name: Args.string({ required: true, description: "secret" }) };
  static override examples = ["<%= config.bin %> secret rm openai"];

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(SecretRemove);
    const done = await runningDaemon(flags.project).call("removeSecret", { name: args.name });
    this.log(done.removed ? `removed   ${done.name}` : `${done.name} was not in the keychain`);
    return done;
  }
}
