import type { Command } from "../attestation/executable-resolution.js";
import type { ExpectedProgram } from "../attestation/launched-process.js";
import {
  compareWithLock,
  describeDifference,
  expectedProgram,
  markFiles,
  type PinnedLaunch,
  pinLaunch,
} from "../attestation/pinning.js";
import { messageOf } from "../coded-error.js";
import type { LaunchConfig } from "../config/config.js";
import { formatCommand } from "../config/describe-identity.js";
import { refusal } from "./launch-refusal.js";

/** What differs between the command of the entry and the one that was asked for, in words. */
export function commandDifference(
  wanted: LaunchConfig,
  asked: Pick<LaunchConfig, "workingDirectory"> & { readonly argv: readonly string[] },
): string | undefined {
  if (formatCommand(wanted.argv) !== formatCommand(asked.argv)) {
    return `agentid.yaml has  ${formatCommand(wanted.argv)}\nyou asked for     ${formatCommand(asked.argv)}`;
  }
  if (wanted.workingDirectory !== asked.workingDirectory) {
    return `it runs in ${wanted.workingDirectory}; this is ${asked.workingDirectory}`;
  }
  return undefined;
}

/** What the process must become. Throws CodedError `launch-refused` where something is not as agentid.lock pins it. */
export async function programAsPinned(name: string, command: Command, pinned: PinnedLaunch): Promise<ExpectedProgram> {
  // Before the digests are made: what is touched from now on is seen.
  const files = markFiles(pinned, command.workingDirectory);
  const now = await pinLaunch(command).catch((thrown: unknown) => {
    throw refusal(messageOf(thrown), "is the command installed?");
  });
  const differences = compareWithLock(pinned, now).map(describeDifference);
  if (differences.length > 0) {
    throw refusal(
      `${name} is not what agentid.lock pins:\n${differences.map((line) => `  ${line}`).join("\n")}`,
      `if you made this change: agentid entry pin ${name}`,
    );
  }
  return expectedProgram(command, pinned, files);
}
