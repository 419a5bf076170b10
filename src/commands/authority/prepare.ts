import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class AuthorityPrepare extends AgentidCommand {
  static override summary = "Put the next authority into the bundle, so that verifiers know it before it signs";
  static override examples = ["<%= config.bin %> authority prepare && <%= config.bin %> authority activate"];

  async run(): Promise<unknown> {
    const { flags } = await this.parse(AuthorityPrepare);
    const prepared = await runningDaemon(flags.project).call("prepareAuthority", {});
    this.log(`prepared  ${prepared.keyId}   until ${prepared.notAfter}`);
    return prepared;
  }
}
