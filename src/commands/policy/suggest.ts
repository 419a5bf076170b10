import { destination, displayText } from "../../control-api/display-text.js";
import type { DeniedCalls, ShadowedCalls } from "../../control-api/explanation-routes.js";
import { AgentidCommand } from "../base-command.js";
import { proposalLines } from "../explain.js";
import { runningDaemon } from "../running-daemon.js";

export default class PolicySuggest extends AgentidCommand {
  static override summary =
    "For each kind of call that was denied, or will be when a shadow ends: the rules that would allow it, least privilege first";

  async run(): Promise<{ readonly denials: readonly DeniedCalls[]; readonly shadowed: readonly ShadowedCalls[] }> {
    const { flags } = await this.parse(PolicySuggest);
    const { denials, shadowed: seen } = await runningDaemon(flags.project).call("denials", {});
    // What a rule in shadow would allow is among the denials.
    const shadowed = seen.filter(({ outcome }) => outcome.would !== "allow");
    if (denials.length + shadowed.length === 0) this.log("nothing was denied that a rule could allow");
    for (const { count, latest } of denials) this.#show(`${count} × DENY`, latest.rule, latest.reason, latest);
    for (const { count, outcome, latest } of shadowed) {
      const { rule, reason, would } = outcome;
      const what = would === "deny" ? "would be denied" : "would need more";
      this.#show(`${count} × ${what} when the shadow ends`, rule, reason, latest);
    }
    return { denials, shadowed };
  }

  #show(what: string, rule: string, reason: string, latest: DeniedCalls["latest"]): void {
    const { caller, service, target, time, decision } = latest;
    this.log(
      `${what}  ${caller} → ${destination(service, displayText(target, 160))}   ${rule}   last ${time}  decision ${decision}`,
    );
    this.log(`           ${displayText(reason, 200)}`);
    for (const line of proposalLines(latest)) this.log(line);
  }
}
