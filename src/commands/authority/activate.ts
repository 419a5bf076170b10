import { Flags } from "@oclif/core";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class AuthorityActivate extends AgentidCommand {
  static override summary =
    "Let the prepared authority sign; every certificate is replaced, the former one becomes old";
  static override flags = {
    now: Flags.boolean({ summary: "also if verifiers have had it for less than 5 seconds" }),
  };

  async run(): Promise<unknown> {
    const { flags } = await this.parse(AuthorityActivate);
    const active = await runningDaemon(flags.project).call("activateAuthority", { hurried: flags.now });
    this.log(`active    ${active.keyId}   until ${active.notAfter}`);
    return active;
  }
}
