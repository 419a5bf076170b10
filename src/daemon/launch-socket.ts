import type { LaunchRegistry } from "../attestation/launches.js";
import { CodedError } from "../coded-error.js";
import type { LaunchConfig } from "../config/config.js";
import type { LaunchGrant } from "../control-api/routes.js";
import type { Platform } from "../platform/platform.js";
import { isWithin } from "../sandbox/paths.js";
import { type AdmittedPeer, type ControlPeer, createControlServer } from "./control-server.js";
import type { LaunchRequest } from "./launching.js";

/** The walls that a sub-agent shares with the agent that launches it from inside. */
export interface SharedWalls {
  /** Absolute paths that the entry of the agent who brought them shows beside the project. */
  readonly read: readonly string[];
  readonly write: readonly string[];
  /** Throws CodedError `launch-refused` when process `pid` does not stand in them now. */
  require(pid: number): void;
}

/** Grants a launch to a process inside; throws CodedError `launch-refused`. */
export type LaunchInside = (request: LaunchRequest, peer: AdmittedPeer, walls: SharedWalls) => Promise<LaunchGrant>;

export type RefusedInside = (
  who: { readonly pid: number; readonly uid: number },
  route: string,
  reason: string,
) => void;

/**
 * A socket inside one sandbox, at which its agents ask for the sub-agents that their entries name; it answers nothing else, and nobody who is not inside. What
 * is launched there stands in the same walls.
 */
export interface LaunchSocket {
  /** From now on who is in this network namespace, and descends from an agent, is heard. */
  admitFrom(network: string): void;
  close(): Promise<void>;
}

export async function openLaunchSocket(
  path: string,
  options: {
    readonly platform: Platform;
    readonly launches: Pick<LaunchRegistry, "descentOf">;
    readonly launch: LaunchInside;
    readonly walls: SharedWalls;
    readonly refused: RefusedInside;
  },
): Promise<LaunchSocket> {
  const { platform, launches, launch, walls, refused } = options;
  let network: string | undefined;

  function whyNot({ fd }: ControlPeer, route: string): { pid: number; uid: number; reason: string } | undefined {
    const credentials = platform.peerOfUnixSocket(fd);
    const handle = platform.openProcess(credentials);
    const { pid, uid } = credentials;
    try {
      if (route !== "launch")
        return { pid, uid, reason: "inside a sandbox a sub-agent can be launched, and nothing else" };
      if (network === undefined || platform.networkOf(pid) !== network) {
        return { pid, uid, reason: "it is not inside this sandbox" };
      }
      const descent = launches.descentOf(handle);
      descent?.close();
      if (descent === undefined) return { pid, uid, reason: "nothing shows which agent started it" };
      // All of it was of this very process.
      handle.status();
      return undefined;
    } finally {
      handle.close();
    }
  }

  const server = createControlServer({
    admit(peer, route) {
      const refusal = whyNot(peer, route);
      if (refusal === undefined) return "agent";
      refused(refusal, route, refusal.reason);
      throw new CodedError("not-administrator", `process ${refusal.pid} is refused: ${refusal.reason}`);
    },
    handlers: { launch: (request, peer) => launch(request, peer, walls) },
  });
  await server.listen(path);
  return {
    admitFrom(name) {
      network = name;
    },
    close: () => server.close(),
  };
}

/** What these walls show and the sandbox that `wanted` asks for would not; undefined where there is nothing, or it asks for none. */
export function widerThan(walls: SharedWalls, { sandbox }: LaunchConfig): string | undefined {
  if (sandbox === undefined) return undefined;
  const shown = [...sandbox.read, ...sandbox.write];
  const among = (places: readonly string[]) => (path: string) => places.some((place) => isWithin(path, place));
  return walls.write.find((path) => !among(sandbox.write)(path)) ?? walls.read.find((path) => !among(shown)(path));
}
