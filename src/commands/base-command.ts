import { Command, Flags } from "@oclif/core";
import { CodedError, codeOf, messageOf } from "../coded-error.js";

/** Exit codes of every command: 0 done, and these. */
export const EXIT = { failed: 1, usage: 2, denied: 3, notRunning: 4 } as const;

const EXIT_CODES: Readonly<Record<string, number>> = {
  "daemon-not-running": EXIT.notRunning,
  "launch-refused": EXIT.denied,
  "not-administrator": EXIT.denied,
  "bad-request": EXIT.usage,
  "workload-api-unavailable": EXIT.notRunning,
  "workload-api-permission-denied": EXIT.denied,
  "workload-api-address-missing": EXIT.usage,
  "workload-api-address-invalid": EXIT.usage,
  // As shells have it for Ctrl-C.
  interrupted: 130,
};

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
    if (!(thrown instanceof CodedError)) {
      if (thrown.oclif !== undefined || process.env.DEBUG) return super.catch(thrown);
      return this.fail(codeOf(thrown), messageOf(thrown), undefined);
    }
    return this.fail(thrown.code, thrown.message, thrown.hint);
  }

  private fail(code: string, message: string, hint: string | undefined): void {
    // One line, as everything that commands print with --json and is read line by line.
    if (this.jsonEnabled()) {
      process.stdout.write(
        `${JSON.stringify({ error: { code, message, ...(hint === undefined ? {} : { hint }) } })}\n`,
      );
    } else {
      this.logToStderr(
        `agentid: ${message}${hint === undefined ? "" : `\n         ${hint.replaceAll("\n", "\n         ")}`}`,
      );
    }
    process.exitCode = EXIT_CODES[code] ?? EXIT.failed;
  }
}
