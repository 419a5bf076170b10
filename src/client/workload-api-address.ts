import { CodedError } from "../coded-error.js";
import { CONFIG_FILE, findProjectDirectory, workloadApiSocketPath } from "../platform/directories.js";

/**
 * Address of a Workload API for a command: `named` by its flag, else that of the project in `projectDirectory`, else SPIFFE_ENDPOINT_SOCKET,
 * else that of the project around the working folder. Whether somebody listens there is not looked at. Throws CodedError `no-project`.
 */
export function findWorkloadApi(
  named: string | undefined,
  projectDirectory: string | undefined,
  environment: Readonly<Record<string, string | undefined>>,
): string {
  if (named !== undefined) return named;
  if (projectDirectory !== undefined) return addressOf(projectDirectory, environment);
  const variable = environment.SPIFFE_ENDPOINT_SOCKET;
  if (variable !== undefined && variable !== "") return variable;
  const project = findProjectDirectory(process.cwd());
  if (project === undefined) {
    throw new CodedError(
      "no-project",
      `SPIFFE_ENDPOINT_SOCKET is not set, and there is no ${CONFIG_FILE} in this folder or above it`,
      { hint: "agentid init writes one; or name the Workload API: --socket unix:///path" },
    );
  }
  return addressOf(project, environment);
}

function addressOf(projectDirectory: string, environment: Readonly<Record<string, string | undefined>>): string {
  return `unix://${encodeURI(workloadApiSocketPath(projectDirectory, environment))}`;
}
