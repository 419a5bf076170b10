import { Args } from "@oclif/core";
import { AgentidCommand, EXIT } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class FederateRefresh extends AgentidCommand {
  static override summary = "Fetch the bundles of other trust domains now";
  static override args = { "trust-domain": Args.string({ description: "one of them (default: all)" }) };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(FederateRefresh);
    const trustDomain = args["trust-domain"];
    const input = trustDomain === undefined ? {} : { trustDomain };
    const done = await runningDaemon(flags.project).call("refreshFederation", input);
    for (const { trustDomain: name, outcome, problem } of done.results) {
      this.log(`${name}  ${outcome}${problem === undefined ? "" : `: ${problem.message}`}`);
    }
    if (done.results.some(({ outcome }) => outcome === "failed")) process.exitCode = EXIT.failed;
    return done;
  }
}
