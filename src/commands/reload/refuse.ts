import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class ReloadRefuse extends AgentidCommand {
  static override summary = "Refuse the waiting change that widens permissions; the files stay as they are";

  async run(): Promise<unknown> {
    const { flags } = await this.parse(ReloadRefuse);
    const done = await runningDaemon(flags.project).call("refuseReload", {});
    for (const change of done.changes) this.log(`refused  ${change}`);
    return done;
  }
}
