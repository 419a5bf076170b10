import { userInfo } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import { CodedError } from "../coded-error.js";
import type { Config, LaunchConfig } from "../config/config.js";
import { engineFiles, engineSecrets } from "../config/policy-schema.js";
import { CONFIG_FILE } from "../platform/directories.js";
import { hostFiles } from "../sandbox/host-files.js";
import { planSandbox, type SandboxPlan, SandboxWishError } from "../sandbox/plan.js";

export interface LaunchToPlan {
  /** The identity's, for messages. */
  readonly name: string;
  readonly launch: LaunchConfig;
  readonly executable: string;
  /** Absolute. */
  readonly files: readonly string[];
  /** Path of its door. */
  readonly door: string;
  /** Path of the socket at which it asks for sub-agents. */
  readonly launchSocket: string | undefined;
}

/** The daemon's own places. */
export interface OwnPlaces {
  readonly runtimeDirectory: string;
  readonly stateDirectory: string;
  /** Path of its socket. */
  readonly workloadApi: string;
  readonly environment: NodeJS.ProcessEnv;
}

/** What one launch sees of this project and this machine. Throws CodedError `launch-refused` when its entry asks for what a sandbox never shows. */
export function planLaunch(launch: LaunchToPlan, config: Config, own: OwnPlaces): SandboxPlan {
  const { projectDirectory, policiesDirectory, services, upstreamAuthority, federation, oidc, policy } = config;
  const sockets = services.flatMap(({ upstream, listenSocket }) => [
    ...(upstream.kind === "unix" ? [upstream.path] : []),
    // Who could replace it would be called in place of the service; inside, the port is there.
    ...(typeof listenSocket === "string" ? [listenSocket] : []),
  ]);
  const ofEgress = Object.values(config.secrets).flatMap((source) => (source.kind === "file" ? [source.path] : []));
  const secrets = [...engineSecrets(policy), ...ofEgress];
  const keys = [upstreamAuthority?.key, federation.endpoint?.web?.key, oidc?.web?.key, ...secrets].filter(
    (key) => key !== undefined,
  );
  try {
    return planSandbox(
      {
        projectDirectory,
        homes: homesOf(own.environment),
        // A socket is hidden with its folder: whoever replaces the socket outside must not uncover it inside.
        hidden: [
          own.stateDirectory,
          join(projectDirectory, ".agentid"),
          dirname(own.runtimeDirectory),
          ...sockets.map((path) => (dirname(path) === projectDirectory ? path : dirname(path))),
          ...keys,
        ],
        protected: [
          join(projectDirectory, CONFIG_FILE),
          join(projectDirectory, "agentid.lock"),
          join(projectDirectory, "entities.yaml"),
          policiesDirectory,
          ...config.egress.flatMap(({ ca }) => ca ?? []),
          ...engineFiles(policy).filter((path) => !secrets.includes(path)),
          ...(config.file === undefined ? [] : [config.file]),
        ],
        workingDirectory: launch.launch.workingDirectory,
        executable: launch.executable,
        files: launch.files,
        read: launch.launch.sandbox?.read ?? [],
        write: launch.launch.sandbox?.write ?? [],
        workloadApi: own.workloadApi,
        door: launch.door,
        launchSocket: launch.launchSocket,
      },
      hostFiles,
    );
  } catch (thrown) {
    if (!(thrown instanceof SandboxWishError)) throw thrown;
    throw new CodedError("launch-refused", `the sandbox of ${launch.name} cannot be made: ${thrown.message}`, {
      hint: `see launch.sandbox of ${launch.name} in ${CONFIG_FILE}`,
      cause: thrown,
    });
  }
}

/** The account's home, and what this terminal takes for it. */
function homesOf({ HOME }: NodeJS.ProcessEnv): readonly string[] {
  const named = HOME !== undefined && isAbsolute(HOME) ? [HOME] : [];
  return [...new Set([...named, ...accountHome()].map(hostFiles.real))];
}

function accountHome(): readonly string[] {
  try {
    return [userInfo().homedir];
  } catch {
    return []; // a user without an account
  }
}
