import type { LaunchGrant } from "../control-api/routes.js";
import type { SandboxGrant } from "../control-api/sandbox-view.js";
import type { InheritedState } from "../platform/inherited-state.js";
import { SANDBOX_EXEC, seatbeltProfile } from "../sandbox/seatbelt.js";
import { becomeProcess } from "./become.js";
import { keepSandbox } from "./keep-sandbox.js";
import { insideEnvironment } from "./sandbox-environment.js";

/** Goes on to the command behind the walls that the grant describes. Never returns. */
export function becomeSandboxed(
  argv: readonly string[],
  environment: Readonly<Record<string, string>>,
  grant: LaunchGrant & { readonly sandbox: SandboxGrant },
  initialState: InheritedState,
): Promise<never> {
  const { sandbox } = grant;
  const inside = insideEnvironment(environment, grant);
  if (sandbox.wall === "namespaces") return keepSandbox(sandbox, inside, initialState);
  // sandbox-exec applies the profile to its own process and executes in place: nothing stands between.
  const socket = environment.SPIFFE_ENDPOINT_SOCKET?.replace(/^unix:\/\//, "") ?? "";
  const profile = seatbeltProfile(sandbox.view, { ports: sandbox.ports, workloadApi: socket });
  const plain = Object.fromEntries(
    Object.entries(environment).filter(([name]) => name in inside || grant.keepEnv.includes(name)),
  );
  return becomeProcess([SANDBOX_EXEC, "-p", profile, ...argv], plain, { initialState });
}
