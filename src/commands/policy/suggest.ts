import { displayText } from "../../control-api/display-text.js";
import type { DeniedCalls } from "../../control-api/routes.js";
import { AgentidCommand } from "../base-command.js";
import { proposalLines } from "../explain.js";
import { runningDaemon } from "../running-daemon.js";

export default class PolicySuggest extends AgentidCommand {
  static override summary =
    "For each kind of call that was denied: the rules that would allow it, least privilege first";

  async run(): Promise<readonly DeniedCalls[]> {
    const { flags } = await this.parse(PolicySuggest);
    const { denials } = await runningDaemon(flags.project).call("denials", {});
    if (denials.length === 0) this.log("nothing was denied that a rule could allow");
    for (const { count, latest } of denials) {
      const { caller, service, target, rule, reason, time, decision } = latest;
      this.log(`${count} × DENY  ${caller} → ${service}/${target}   ${rule}   last ${time}  decision ${decision}`);
      this.log(`           ${displayText(reason, 200)}`);
      for (const line of proposalLines(latest)) this.log(line);
    }
    return denials;
  }
}
