import { displayText } from "../../control-api/display-text.js";
import type { SecretReport } from "../../control-api/secret-routes.js";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class SecretList extends AgentidCommand {
  static override summary = "List the secrets that egress needs: where each is, whether it is there, who uses it";

  async run(): Promise<{ readonly secrets: readonly SecretReport[] }> {
    const { flags } = await this.parse(SecretList);
    const listed = await runningDaemon(flags.project).call("secrets", {});
    if (listed.secrets.length === 0) this.log("no header below egress names a secret");
    for (const { name, state, source, why, usedBy } of listed.secrets) {
      const detail = why === undefined ? "" : `\n  ${displayText(why, 400)}`;
      this.log(`${name.padEnd(16)} ${state.padEnd(9)} ${displayText(source, 200)}   for ${usedBy.join(", ")}${detail}`);
    }
    return listed;
  }
}
