import { CodedError } from "../coded-error.js";
import { CONFIG_FILE, controlSocketPath, findProjectDirectory } from "../platform/directories.js";

/**
 * Path of the control socket: of the project in `projectDirectory`, else what AGENTID_CONTROL names, else of the project around the working folder.
 * Throws CodedError `bad-request` for a malformed AGENTID_CONTROL and `no-project`. Whether a daemon listens there is not looked at.
 */
export function findControlSocket(
  projectDirectory: string | undefined,
  environment: Readonly<Record<string, string | undefined>>,
): string {
  if (projectDirectory !== undefined) return controlSocketPath(projectDirectory, environment);
  const named = environment.AGENTID_CONTROL;
  if (named !== undefined && named !== "") {
    if (named.startsWith("unix:///")) return named.slice("unix://".length);
    throw new CodedError("bad-request", `AGENTID_CONTROL must be unix:///PATH, not ${JSON.stringify(named)}`);
  }
  const project = findProjectDirectory(process.cwd());
  if (project === undefined) {
    throw new CodedError("no-project", `there is no ${CONFIG_FILE} in this folder or above it`, {
      hint: "agentid init writes one; or change into the project",
    });
  }
  return controlSocketPath(project, environment);
}
