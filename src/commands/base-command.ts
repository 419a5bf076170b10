import { Command, Flags } from "@oclif/core";
import { CodedError } from "../coded-error.js";
import { printFailure } from "./failure.js";

export { EXIT } from "./failure.js";

/**
 * What all commands share: `--json`, `--project`, errors that say what happened and what to do next, and the exit codes.
 * A command is thin: flags in, one call, print.
 */
export abstract class AgentidCommand extends Command {
  static override enableJsonFlag = true;
  static override baseFlags = {
    project: Flags.directory({
      summary: "project folder (default: the nearest parent with agentid.yaml)",
      helpGroup: "GLOBAL",
      exists: true,
    }),
  };

  protected override async catch(thrown: Error & { exitCode?: number; oclif?: { exit?: number } }): Promise<unknown> {
    // oclif's own: wrong usage, --help, an explicit exit.
    if (!(thrown instanceof CodedError) && (thrown.oclif !== undefined || process.env.DEBUG))
      return super.catch(thrown);
    printFailure(thrown, this.jsonEnabled());
    return undefined;
  }
}
