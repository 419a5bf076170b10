import { inheritedState } from "../platform/inherited-state.js";

/**
 * `agentid run NAME -- CMD…`: asks the daemon, then becomes the command. `args` is the command line after `run`. Never returns: the process becomes the
 * command or exits.
 *
 * Only what reads the inherited state is loaded before it is read: loading node:http or koffi touches process.stderr, which makes a pipe non-blocking.
 */
export async function run(args: readonly string[]): Promise<never> {
  const initialState = inheritedState();
  const { launch } = await import("./launch.js");
  return launch(args, initialState);
}
