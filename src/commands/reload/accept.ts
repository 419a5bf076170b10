import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class ReloadAccept extends AgentidCommand {
  static override summary = "Accept the waiting change that widens permissions";

  async run(): Promise<unknown> {
    const { flags } = await this.parse(ReloadAccept);
    const done = await runningDaemon(flags.project).call("acceptReload", {});
    for (const change of done.changes) this.log(`accepted  ${change}`);
    return done;
  }
}
