import { Command, Errors, Flags } from "@oclif/core";
import { CodedError } from "../coded-error.js";
import { printFailure } from "./failure.js";
import { wrongArguments } from "./wrong-usage.js";

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

  protected override async catch(thrown: Error): Promise<unknown> {
    // oclif's own: --help, an explicit exit.
    const exits = thrown instanceof Errors.ExitError;
    if (exits || (!(thrown instanceof CodedError) && process.env.DEBUG)) return super.catch(thrown);
    // Commands parse their arguments before all else.
    const wrong = !this.parsed && !(thrown instanceof CodedError);
    // Else the framework warns developers of a command that has not looked at its arguments.
    this.parsed = true;
    printFailure(wrong ? wrongArguments(thrown, this.id ?? "", this.config) : thrown, this.jsonEnabled());
    return undefined;
  }
}
